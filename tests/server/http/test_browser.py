"""A page of another origin in a real browser. Skipped on a machine without Chromium."""

import html
import http.server
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lora_compose.server.options.http_options import HttpOptions
from tests.server.app_without_engine import OPERATOR_KEY, app_without_engine

NAMES = ("chromium-headless-shell", "chromium", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
PAGE = """<!doctype html><pre id="found">nothing yet</pre><script>
const server = SERVER, key = {authorization: "Bearer KEY"}
const json = {...key, "content-type": "application/json"}
const body = JSON.stringify({model: "testbed-base", messages: []})
async function ask(path, options) {
  try {
    const reply = await fetch(server + path, options)
    const text = await reply.text()
    return {status: reply.status, id: reply.headers.has("x-request-id"),
            composition: reply.headers.get("x-lora-composition"), readable: text.length > 0}
  } catch (error) { return {failed: String(error)} }
}
(async () => {
  const found = {
    models: await ask("/v1/models", {headers: key}),
    chat: await ask("/v1/chat/completions", {method: "POST", headers: json, body}),
    removed: await ask("/v1/adapters/none", {method: "DELETE", headers: key}),
    refused: await ask("/v1/models"),
    elsewhere: await ask("/nope", {headers: key}),
  }
  document.getElementById("found").textContent = JSON.stringify(found)
})()
</script>"""


@contextmanager
def page_of_another_origin(directory: Path) -> Iterator[str]:
    """Serve the directory on a port of its own."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(directory))

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def shown_by_the_browser(home: Path, allowed: bool) -> Any:
    """What the page found in the browser."""
    (home / "page").mkdir()
    with page_of_another_origin(home / "page") as origin:
        origins = (origin,) if allowed else ("https://example.org",)
        http_options = HttpOptions(allowed_origins=origins)
        with app_without_engine(home, api_keys=[OPERATOR_KEY], http=http_options) as app:
            text = PAGE.replace("SERVER", json.dumps(app.admin_url)).replace("KEY", OPERATOR_KEY)
            (home / "page" / "index.html").write_text(text)
            dumped = dom(f"{origin}/index.html", home / "profile")
    found = re.search('<pre id="found">(.*?)</pre>', dumped, re.DOTALL)
    assert found, dumped
    return json.loads(html.unescape(found[1]))


def dom(url: str, profile: Path) -> str:
    """The page's DOM after its requests have ended."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    command = [str(BROWSER), *flags, "--virtual-time-budget=20000", "--dump-dom", url]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.skipif(BROWSER is None, reason="this machine has no Chromium")
def test_an_allowed_page_reads_every_response(tmp_path: Path) -> None:
    reply = {"id": True, "composition": None, "readable": True}
    assert shown_by_the_browser(tmp_path, allowed=True) == {
        "models": {**reply, "status": 200},
        "chat": {**reply, "status": 200, "composition": "testbed-base"},
        "removed": {**reply, "status": 404},
        "refused": {**reply, "status": 401},
        "elsewhere": {**reply, "status": 404},
    }


@pytest.mark.skipif(BROWSER is None, reason="this machine has no Chromium")
def test_another_page_reads_none(tmp_path: Path) -> None:
    found = shown_by_the_browser(tmp_path, allowed=False)
    assert [list(reply) for reply in found.values()] == [["failed"]] * 5
