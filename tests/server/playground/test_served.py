"""The page in front of the real engine: what it shows is what the API answers."""

from pathlib import Path

import httpx

from tests.browser import browser, needs_browser
from tests.running_server import RunningServer

DONE = "document.querySelectorAll('.column[data-status=done]').length === "
COMPARED = ".column.live .token.likelier, .column.live .token.less-likely"


@needs_browser
def test_a_slider_shows_the_answer_of_its_composition(
    server: RunningServer, http: httpx.Client, tmp_path: Path
) -> None:
    with browser(tmp_path / "profile") as page:
        page.open(f"{server.url}/")
        page.wait_for_text("roll", ".weight label")
        page.fill("#prompt", "roll table")
        page.click("Ask")
        page.wait_for(f"{DONE}1")
        page.click("Base")
        page.fill("#weight-roll", 1)
        page.fill("#weight-upper", 0.9)
        page.wait_for_text("roll@1+upper@1:0.9", ".column.live .facts")
        page.wait_for(f"document.querySelector('{COMPARED}') !== null")
        page.wait_for(f"{DONE}2")
        shown = [page.text(f".column:nth-child({place}) .text") for place in (1, 2)]
        page.evaluate("document.querySelector('.column.live [data-index=\"0\"]').focus()")
        page.wait_for("document.querySelectorAll('.candidates li').length === 10")
        assert page.errors == []
    for model, text in zip(("roll+upper:0.9", "testbed-base"), shown, strict=True):
        body = {"model": model, "messages": [{"role": "user", "content": "roll table"}]}
        reply = http.post("/v1/chat/completions", json=body | {"temperature": 0, "max_tokens": 64})
        assert text.removesuffix("end") == reply.json()["choices"][0]["message"]["content"]
