"""What a person does on the page, in a real browser. The server is real, except for its engine."""

import json
from pathlib import Path

from lora_compose.training.data.layouts import LAYOUTS
from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.browser import Page, needs_browser
from tests.server.app_without_engine import AppWithoutEngine
from tests.server.playground.answers import SLOW
from tests.server.playground.steps import ANSWERED, DROP, LIVE, ask, downloaded

pytestmark = needs_browser


def test_a_slider_asks_again_at_once_and_says_what_answered(page: Page) -> None:
    page.wait_for_text("roll", ".weight label")
    ask(page, "roll table")
    assert page.text(LIVE) == "testbed-base"
    page.fill("#weight-roll", 0.7)
    page.fill("#weight-upper", -1)
    page.wait_for_text("roll@1:0.7+upper@1:-1", LIVE)
    page.wait_for_text("roll@1:0.7+upper@1:-1 not fused", ".column.live .facts")


def test_a_typed_weight_may_be_outside_of_the_slider(page: Page) -> None:
    ask(page, "roll table")
    page.fill("input[aria-label='Weight of roll, typed']", 3.25)
    page.wait_for_text("roll@1:3.25", LIVE)


def test_only_the_last_of_many_moves_is_shown(page: Page) -> None:
    ask(page, "roll table")
    for step in range(1, 30):
        page.fill("#weight-wrap", step / 20)
    page.wait_for_text("wrap@1:1.45", LIVE)
    page.wait_for(f"{ANSWERED}1")
    assert page.text(LIVE) == "wrap@1:1.45"


def test_an_answer_is_stopped_and_asked_for_again(page: Page) -> None:
    page.fill("#prompt", SLOW)
    page.click("Ask")
    page.wait_for_text("te", LIVE)
    page.click("Stop")
    page.wait_for_text("Stopped.", LIVE)
    assert page.evaluate("document.querySelector('.column.live').dataset.status") == "stopped"
    page.click("New conversation")
    ask(page, "roll table")
    assert page.text(LIVE) == "testbed-base"


def test_a_merge_is_asked_for_with_its_options(page: Page) -> None:
    page.fill("#weight-roll", 1)
    page.fill("#weight-upper", 1)
    page.fill("#method", "ties")
    page.fill("#option-density", 0.3)
    page.fill("#option-rank", 4)
    ask(page, "roll table")
    assert page.text(LIVE) == "ties(roll@1+upper@1,density=0.3,rank=4)"


def test_columns_are_compared_token_by_token(page: Page) -> None:
    page.fill("#weight-roll", 1)
    ask(page, "roll table")
    page.click("Base")
    page.wait_for(f"{ANSWERED}2")
    page.wait_for("document.querySelectorAll('.column.live .token.likelier').length === 'roll@1'.length")
    page.evaluate("document.querySelector('.column.live [data-index=\"2\"]').focus()")
    page.wait_for("document.querySelectorAll('.candidates ol').length === 2")
    assert "90 times likelier than under the base" in page.text(".inspector")
    assert page.text(".candidates > div:first-child li").split() == ["l", "90.0", "%"]
    assert page.evaluate("document.querySelectorAll('.candidates > div:last-child li').length") == 5


def test_the_conversation_goes_on_with_the_answer_of_the_sliders(page: Page) -> None:
    ask(page, "first")
    page.fill("#weight-roll", 1)
    page.wait_for_text("roll@1", LIVE)
    ask(page, "second")
    page.wait_for_text("roll@1", ".turns .assistant")
    page.wait_for("document.querySelectorAll('.turns li').length === 2")
    page.evaluate("document.querySelector('.elsewhere').open = true")
    assert '{"role":"assistant","content":"roll@1"},{"role":"user","content":"second"}' in page.text("pre")


def test_a_base_without_a_chat_template_continues_texts(page: Page) -> None:
    page.fill("#form", "text")
    page.fill("#weight-roll", 1)
    ask(page, "Once upon")
    assert page.text(LIVE) == "Once upon roll@1"
    page.evaluate("document.querySelector('.elsewhere').open = true")
    assert "/v1/completions" in page.text("pre")
    assert '"prompt":"Once upon"' in page.text("pre")
    page.wait_for("document.querySelectorAll('.column.live .token.likelier').length === 16")


def test_a_vote_is_a_pair_that_training_reads(page: Page, tmp_path: Path) -> None:
    page.fill("#weight-roll", 1)
    ask(page, "which?")
    page.click("Base")
    page.wait_for(f"{ANSWERED}2")
    page.click("Tie")
    page.click("Left is better")
    text = downloaded(page, "Download 1 pair (JSONL)", tmp_path / "preferences.jsonl")
    (record,) = map(json.loads, text.splitlines())
    layout = next(layout for layout in LAYOUTS if layout.fits(record))
    (row,) = layout.convert(record, lambda _: None)
    assert row == {
        "prompt": [{"role": "user", "content": "which?"}],
        "chosen": [{"role": "assistant", "content": "roll@1"}],
        "rejected": [{"role": "assistant", "content": "testbed-base"}],
    }


def test_a_vote_has_the_shape_in_which_the_prompt_was_sent(page: Page, tmp_path: Path) -> None:
    page.fill("#form", "text")
    page.fill("#weight-roll", 1)
    ask(page, "Once upon")
    page.click("Base")
    page.wait_for(f"{ANSWERED}2")
    page.fill("#form", "chat")  # counts from the next request
    page.click("Right is better")
    record = json.loads(downloaded(page, "Download 1 pair (JSONL)", tmp_path / "preferences.jsonl"))
    texts = {"chosen": "Once upon testbed-base", "rejected": "Once upon roll@1"}
    assert record == {"prompt": "Once upon"} | texts


def test_an_upload_says_its_version_or_why_it_is_refused(page: Page, tmp_path: Path) -> None:
    page.click("Adapters", "nav a")
    files = [ADAPTERS_DIR / "bang" / name for name in ("adapter_config.json", "adapter_model.safetensors")]
    broken = tmp_path / "adapter_model.safetensors"
    broken.write_bytes(files[1].read_bytes()[:1000])
    page.fill("#upload-name", "loud")
    page.evaluate(DROP)
    page.wait_for_text("not weights.bin", ".upload .error")
    page.click("Clear")
    page.choose_files("#files", [files[0], broken])
    page.click("Upload")
    page.wait_for_text("corrupt_weights", ".upload .error")
    page.choose_files("#files", files)
    page.wait_for("!document.querySelector('.upload .error')")
    page.click("Upload")
    page.wait_for_text("Registered loud@1.", ".done")
    page.wait_for_text("loud@1", "table code")
    page.click("Details of loud@1")
    page.fill("input[aria-label='New alias of loud@1']", "prod")
    page.click("Set alias")
    page.wait_for_text("prod", ".alias")
    page.click("Remove loud@1")
    page.click("Yes, remove loud@1")
    page.wait_for("![...document.querySelectorAll('table code')].some((one) => one.innerText === 'loud@1')")


def test_a_setting_is_fused_restored_and_saved(app: AppWithoutEngine, page: Page) -> None:
    page.fill("#weight-roll", 1)
    page.fill("#weight-upper", 0.5)
    page.click("Server", "nav a")
    page.click("Fuse roll+upper:0.5")
    page.wait_for_text("roll@1+upper@1:0.5", "section[aria-label=Fusion] code")
    page.click("Ask", "nav a")
    ask(page, "roll table")
    page.wait_for_text("fused into the base weights", ".column.live .facts")
    page.click("Server", "nav a")
    page.click("Restore the base")
    page.wait_for_text("The base weights hold no adapter.")
    page.click("Adapters", "nav a")
    page.fill("input[aria-label='Name of the composition']", "duo")
    page.click("Save")
    page.wait_for_text("roll@1+upper@1:0.5", "section[aria-label='Saved compositions'] td")
    with app.client() as client:
        assert client.get("/v1/compositions/duo").json()["resolved"] == "roll@1+upper@1:0.5"


def test_the_heat_map_has_25_settings_and_moves_the_sliders(page: Page) -> None:
    ask(page, "roll table")
    page.click("Weights", "nav a")
    page.fill("#figure", "own")
    page.click("Compute")
    page.wait_for("document.querySelectorAll('.heat button').length === 25")
    page.evaluate("document.querySelectorAll('.heat button')[24].click()")
    page.wait_for("document.querySelectorAll('.weight.used').length === 2")


def test_a_phone_shows_every_view_without_scrolling_sideways(page: Page) -> None:
    page.call("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True)
    try:
        for view in ("Ask", "Weights", "Adapters", "Server"):
            page.click(view, "nav a")
            page.wait_for(f"document.querySelector('nav a[aria-current]').innerText === '{view}'")
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, view
    finally:
        page.call("Emulation.clearDeviceMetricsOverride")


def test_every_control_has_a_name_for_a_screen_reader(page: Page) -> None:
    nameless = []
    for view in ("Ask", "Weights", "Adapters", "Server"):
        page.click(view, "nav a")
        page.wait_for(f"document.querySelector('nav a[aria-current]').innerText === '{view}'")
        for node in page.call("Accessibility.getFullAXTree")["nodes"]:
            role = node.get("role", {}).get("value")
            controls = ("button", "textbox", "slider", "combobox", "spinbutton", "link", "searchbox")
            if role in controls and not node["ignored"] and not node.get("name", {}).get("value"):
                nameless.append((view, role, node["nodeId"]))
    assert nameless == []
