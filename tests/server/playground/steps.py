"""What the tests of the page do again and again."""

from collections.abc import Iterator
from pathlib import Path

from tests.browser import Page

ANSWERED = "document.querySelectorAll('.column[data-status=done]').length === "
ANSWER_SECONDS = 90.0
"""A first merge starts a process that imports torch, which takes long while other programs run."""
LIVE = ".column.live .answer"
DROP = """(() => {
  const dataTransfer = new DataTransfer()
  dataTransfer.items.add(new File(["x"], "weights.bin"))
  document.querySelector(".drop").dispatchEvent(new DragEvent("drop", {dataTransfer, bubbles: true}))
})()"""


def opened(tab: Page, url: str) -> Iterator[Page]:
    tab.open("about:blank")
    tab.errors.clear()
    tab.requests.clear()
    tab.open(f"{url}/")
    tab.wait_for_text("lora-compose", "h1")
    yield tab
    assert tab.errors == []
    assert {address for address in tab.requests if not address.startswith((url, "about:", "blob:"))} == set()


def ask(page: Page, text: str, columns: int = 1) -> None:
    page.fill("#prompt", text)
    page.click("Ask")
    page.wait_for(f"{ANSWERED}{columns}", ANSWER_SECONDS)


def downloaded(page: Page, button: str, file: Path) -> str:
    """Click the button, and wait for the file that the browser then writes. Its content."""
    page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(file.parent))
    page.click(button)
    for _ in range(100):
        if file.is_file() and (text := file.read_text()):
            return text
        page.wait_for("new Promise((done) => setTimeout(() => done(true), 50))")
    raise AssertionError(f"{file} was not downloaded")
