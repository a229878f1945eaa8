"""Drives a headless Chromium over the DevTools protocol: https://chromedevtools.github.io/devtools-protocol/

It waits for what the page shows, never for a time. It keeps the errors that the page reports, and the
addresses that it asks for.
"""

import base64
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium-headless-shell", "chromium", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
)
SECONDS = 20.0
WORSE = ("error", "warning", "assert")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="this machine has no Chromium")


class Page:
    """One tab. `errors` are exceptions, console errors and violations of the policy."""

    def __init__(self, connection: ClientConnection) -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._connection = connection
        self._ids = itertools.count(1)
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:
        """A command of the protocol and its result. Events that come before it are handled."""
        number = next(self._ids)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        self._connection.send(json.dumps(message | ({"sessionId": self._session} if self._session else {})))
        while True:
            received = json.loads(self._connection.recv(SECONDS))
            if received.get("id") == number:
                assert "error" not in received, (method, received["error"])
                return received["result"]
            self._handle(received.get("method"), received.get("params", {}))

    def _handle(self, event: str | None, params: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(params["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and params["type"] in WORSE:
            self.errors.append(json.dumps(params["args"]))
        elif event == "Log.entryAdded" and params["entry"]["source"] != "network":
            self.errors.append(params["entry"]["text"])  # a `network` entry is a refusal of the server

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, which may be a promise."""
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, (expression, result)
        return result["result"].get("value")

    def wait_for(self, expression: str, seconds: float = SECONDS) -> Any:
        """The first true value of the expression."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := self.evaluate(expression):
                return value
            time.sleep(0.02)
        shown = self.evaluate("document.body.innerText")
        raise AssertionError(f"never true: {expression}\n{self.errors}\n{shown}")

    def text(self, selector: str = "body") -> str:
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def wait_for_text(self, text: str, selector: str = "body") -> None:
        found = f"[...document.querySelectorAll({json.dumps(selector)})].some((one) => one.innerText.includes"
        self.wait_for(f"{found}({json.dumps(text)}))")

    def click(self, text: str, selector: str = "button") -> None:
        """Click the first such element with this text or accessible name, once it can be clicked."""
        found = (
            f"[...document.querySelectorAll({json.dumps(selector)})].find((one) => !one.disabled && "
            f"(one.innerText.trim() === {json.dumps(text)} || one.ariaLabel === {json.dumps(text)}))"
        )
        self.wait_for(f"Boolean({found})")
        self.evaluate(f"void {found}.click()")

    def fill(self, selector: str, value: object) -> None:
        """Set the value of a field as a person does: `input` and `change` events follow."""
        field = f"document.querySelector({json.dumps(selector)})"
        self.wait_for(f"Boolean({field})")
        self.evaluate(
            f"void (() => {{ const field = {field}; field.focus(); field.value = {json.dumps(str(value))};"
            "for (const name of ['input', 'change'])"
            "field.dispatchEvent(new Event(name, {bubbles: true})) })()"
        )

    def choose_files(self, selector: str, paths: Sequence[Path]) -> None:
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def screenshot(self, path: Path, width: int, height: int, *, dark: bool = False) -> None:
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=features)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 640}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        picture = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=height == 0)
        path.write_bytes(base64.b64decode(picture["data"]))


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A tab of a new Chromium with an empty profile, which also gets the downloads."""
    profile.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [str(BROWSER), *FLAGS, f"--user-data-dir={profile}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Debian's command is a shell script that waits for the browser
    )
    try:
        port, path = _address(process, profile / "DevToolsActivePort")
        with connect(f"ws://127.0.0.1:{port}{path}", max_size=None, ping_interval=None) as connection:
            page = Page(connection)
            page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(profile))
            yield page
    finally:
        with suppress(ProcessLookupError):  # it may have ended by itself
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(SECONDS)


def _address(process: subprocess.Popen[bytes], written: Path) -> list[str]:
    """The port and the path of the protocol, which Chromium writes when it listens."""
    end = time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < end:
        if written.is_file() and len(lines := written.read_text().split()) == 2:
            return lines
        time.sleep(0.02)
    raise AssertionError("Chromium did not start")
