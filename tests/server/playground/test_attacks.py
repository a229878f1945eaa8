"""What an attacker would try on the page: texts with markup, scripts that were brought in, and the key."""

from pathlib import Path

import httpx
import pytest

from lora_compose.server.playground.site import SECURITY_HEADERS
from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.browser import Page, needs_browser
from tests.server.app_without_engine import (
    OPERATOR_KEY,
    AppWithoutEngine,
    StandIn,
    app_without_engine,
    register_shipped,
)
from tests.server.playground.answers import answer
from tests.server.playground.steps import DROP, LIVE, ask, opened

pytestmark = needs_browser
# What a text that became a script would try, and what stops it.
ATTACKS = {
    "document.body.innerHTML = '<b>x</b>'": "require-trusted-types-for",
    "document.head.append(Object.assign(document.createElement('script'), {text: 'document.title = 1'}))": (
        "require-trusted-types-for"
    ),
    "eval('document.title = 1')": "require-trusted-types-for",
    "document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.2:9/?' + 1}))": "img-src",
    "fetch('http://127.0.0.2:9/', {method: 'POST', body: 'x'}).catch(() => {})": "connect-src",
    "new WebSocket('ws://127.0.0.2:9/')": "connect-src",
    "document.body.append(Object.assign(document.createElement('iframe'), {src: 'http://127.0.0.2:9/'}))": (
        "frame-src"
    ),
    "document.body.append(Object.assign(document.createElement('style'), {textContent: '*{color:red}'}))": (
        "style-src-elem"
    ),
}
TRY = """new Promise((done) => {
  addEventListener("securitypolicyviolation", (event) => done(event.effectiveDirective), {once: true})
  try { ATTACK } catch {}
})"""
MARKUP = '<img src=x onerror="document.title=1"><script>document.title=2</script>'


@pytest.mark.parametrize(("attack", "directive"), ATTACKS.items())
def test_the_policy_stops_a_script_that_was_brought_in(page: Page, attack: str, directive: str) -> None:
    tried = TRY.replace("ATTACK", attack)
    result = page.call(
        "Runtime.evaluate",
        expression=tried,
        awaitPromise=True,
        returnByValue=True,
        allowUnsafeEvalBlockedByCSP=False,
    )
    assert result["result"]["value"] == directive
    assert page.evaluate("document.title") == "lora-compose playground"
    page.errors.clear()  # the browser reports each violation, also requests that it did not send
    page.requests.clear()


def test_markup_in_answers_refusals_and_file_names_stays_text(page: Page) -> None:
    page.fill("#form", "text")
    ask(page, MARKUP)
    page.wait_for_text(MARKUP, LIVE)
    page.click("Adapters", "nav a")
    page.fill("input[aria-label='Name of the composition']", MARKUP)
    page.evaluate(DROP.replace("weights.bin", "<img src=x onerror=document.title=1>.bin"))
    page.wait_for_text("not <img src=x onerror=document.title=1>.bin", ".upload")
    page.click("Details of wrap@1")
    page.fill("input[aria-label='New alias of wrap@1']", "<img src=x onerror=document.title=1>")
    page.click("Set alias")
    page.wait_for_text("alias", ".details .error")
    page.fill("input[aria-label='New alias of wrap@1']", "../../../keys")
    page.click("Set alias")
    page.wait_for_text("not_found", ".details .error")
    assert page.evaluate("document.querySelectorAll('#app img, #app script').length") == 0
    assert page.evaluate("document.title") == "lora-compose playground"


def test_stored_markup_stays_text(app: AppWithoutEngine, page: Page) -> None:
    title = page.evaluate("document.title")
    page.click("Adapters", "nav a")
    body = {"name": "wrap", "path": str(ADAPTERS_DIR / "wrap"), "lineage": {"note": MARKUP}}
    with app.client() as client:
        client.delete("/v1/adapters/wrap").raise_for_status()
        client.post("/v1/adapters", json=body).raise_for_status()
    page.evaluate("location.reload()")
    page.click("Details of wrap@2")
    page.wait_for_text("onerror", "pre")
    page.click("Ask", "nav a")
    ask(page, MARKUP)
    page.wait_for_text(MARKUP, ".question")
    assert page.evaluate("document.querySelectorAll('#app img, #app script').length") == 0
    assert page.evaluate("document.title") == title


def test_a_key_in_the_address_is_not_used_and_one_that_no_header_can_carry_is_refused(
    tmp_path: Path, tab: Page
) -> None:
    with app_without_engine(tmp_path, api_keys=[OPERATOR_KEY]) as app:
        for page in opened(tab, app.url):
            page.open(f"{app.url}/?key={OPERATOR_KEY}&api_key={OPERATOR_KEY}")
            page.wait_for_text("This server needs an API key.", ".notice")
            page.fill(".key input", "ключ")
            page.click("Use")
            page.wait_for_text("The server refuses this key.", ".notice")
            page.click("Forget")
            page.wait_for_text("This server needs an API key.", ".notice")


def test_a_key_shows_what_it_sees_and_is_in_no_address(
    tmp_path: Path, tab: Page, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "lora_compose")
    with app_without_engine(tmp_path, api_keys=[OPERATOR_KEY], engine=StandIn(app=answer)) as app:
        with app.client(OPERATOR_KEY) as client:
            register_shipped(client, ["roll", "upper"])
        secret = app.create_key("reader", adapters=("upper",))
        for page in opened(tab, app.url):
            page.wait_for_text("This server needs an API key.", ".notice")
            page.fill(".key input", "wrong")
            page.click("Use")
            page.wait_for_text("The server refuses this key.", ".notice")
            page.fill(".key input", secret)
            page.click("Use")
            page.wait_for_text("upper", ".weight label")
            assert "roll" not in page.text()
            ask(page, "roll table")
            assert page.text(LIVE) == "testbed-base"
            page.click("Server", "nav a")
            page.wait_for_text("does not show what is fused")
            assert [address for address in page.requests if secret in address] == []
            assert secret not in page.evaluate("document.documentElement.outerHTML")
            assert secret not in page.evaluate("JSON.stringify(localStorage) + document.cookie + location")
            page.click("Forget")
            page.wait_for_text("This server needs an API key.", ".notice")
            assert page.evaluate("sessionStorage.length") == 0
        assert secret not in caplog.text
        written = [path.read_bytes() for path in app.data_dir.rglob("*") if path.is_file()]
        assert [data for data in written if secret.encode() in data] == []


def test_a_key_without_the_right_is_refused_once(tmp_path: Path, tab: Page) -> None:
    with app_without_engine(tmp_path, api_keys=[OPERATOR_KEY]) as app:
        secret = app.create_key("prometheus", role="monitor")
        for page in opened(tab, app.admin_url):
            page.fill(".key input", secret)
            page.click("Use")
            page.wait_for_text("monitor", ".notice")
            before = len(page.requests)
            page.wait_for("new Promise((done) => setTimeout(() => done(true), 2500))")
            assert len(page.requests) == before


def test_another_site_cannot_show_the_page_in_a_frame(app: AppWithoutEngine) -> None:
    headers = httpx.get(app.url, headers={"accept": "text/html"}).headers
    assert headers.items() >= SECURITY_HEADERS.items()


def test_an_adapter_that_is_named_like_a_property_of_objects_starts_at_weight_0(
    tmp_path: Path, tab: Page
) -> None:
    with app_without_engine(tmp_path, engine=StandIn(app=answer)) as app:
        with app.client() as client:
            for name in ("constructor", "toString"):
                body = {"name": name, "path": str(ADAPTERS_DIR / "roll")}
                client.post("/v1/adapters", json=body).raise_for_status()
        for page in opened(tab, app.url):
            page.wait_for_text("constructor", ".weight label")
            ask(page, "roll table")
            assert page.text(LIVE) == "testbed-base"
            page.fill("#weight-constructor", 1)
            page.wait_for_text("constructor@1", LIVE)


@pytest.mark.parametrize("view", ["constructor", "__proto__", "<img src=x>", "%00"])
def test_a_view_that_does_not_exist_is_the_first_one(page: Page, view: str) -> None:
    page.evaluate(f"void (location.hash = {view!r})")
    page.wait_for_text("Ask", "nav a[aria-current]")


def test_a_browser_that_blocks_its_storage_shows_the_page(app: AppWithoutEngine, tab: Page) -> None:
    blocked = "for (const name of ['localStorage', 'sessionStorage']) Object.defineProperty(window, name, "
    script = blocked + "{get() { throw new DOMException('blocked', 'SecurityError') }})"
    added = tab.call("Page.addScriptToEvaluateOnNewDocument", source=script)["identifier"]
    try:
        for page in opened(tab, app.url):
            ask(page, "roll table")
            assert page.text(LIVE) == "testbed-base"
    finally:
        tab.call("Page.removeScriptToEvaluateOnNewDocument", identifier=added)
