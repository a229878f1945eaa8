"""Pictures of the playground, and how fast it is, on a real server with the embedded base and its adapters.

python -m tests.campaigns.playground docs/images
"""

import json
import statistics
import tempfile
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from lora_compose.server.playground.site import files
from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.browser import Page, browser
from tests.running_server import RunningServer

SIZES = {1280: 1020, 390: 844}
MOVES, DRAGGED = 200, 1000
DONE = "document.querySelectorAll('.column[data-status=done]').length === "
COUNTERS = ("lora_compose_prepare_duration_seconds_count", "lora_compose_evictions_total")
MEASURE = """(async () => {
  const slider = document.querySelector("#weight-roll")
  const column = document.querySelector(".column.live")
  const changed = (wanted) => new Promise((done) => {
    if (wanted(column.dataset.status)) return done()
    const observer = new MutationObserver(() => {
      if (wanted(column.dataset.status)) (observer.disconnect(), done())
    })
    observer.observe(column, {attributes: true})
  })
  const found = []
  for (let move = 0; move < MOVES; move++) {
    const begin = performance.now()
    slider.value = ((move * 37) % 200) / 100 - 0.5
    slider.dispatchEvent(new Event("input", {bubbles: true}))
    await changed((status) => status === "waiting")
    await changed((status) => status !== "waiting")
    found.push(performance.now() - begin)
    await changed((status) => status === "done")
  }
  return found
})()"""
DRAG = """(async () => {
  const slider = document.querySelector("#weight-roll")
  for (let move = 0; move < DRAGGED; move++) {
    slider.value = ((move * 37) % 200) / 100 - 0.5
    slider.dispatchEvent(new Event("input", {bubbles: true}))
    await new Promise((done) => setTimeout(done, 5))
  }
})()"""


def scene(page: Page, url: str) -> float:
    """Three settings of one prompt, and a token under the pointer. The ms until the page was usable."""
    page.open(f"{url}/")
    usable = float(page.wait_for("document.querySelector('.weight label') ? performance.now() : 0"))
    page.fill("#weight-roll", 1)
    page.fill("#weight-upper", 0.7)
    page.fill("#prompt", "roll table")
    page.click("Ask")
    page.wait_for(f"{DONE}1")
    page.click("Base")
    page.click("Pin")
    page.fill("#weight-polite", 1)
    page.wait_for(f"{DONE}3")
    page.wait_for("document.querySelector('.column.live .likelier, .column.live .less-likely') !== null")
    page.evaluate("document.querySelector('.column.live [data-index=\"1\"]').focus()")
    page.wait_for("document.querySelectorAll('.candidates ol').length === 3")
    return usable


def pictures(page: Page, directory: Path) -> None:
    """Every view in two widths, light and dark."""
    for view in ("Ask", "Weights", "Adapters", "Server"):
        page.click(view, "nav a")
        page.evaluate("scrollTo(0, 0)")
        if view == "Weights":
            page.click("Compute")
            page.wait_for("document.querySelectorAll('.heat button').length === 25")
        if view == "Server":
            page.click("Ask", "nav a")
            page.click("Ask again")
            page.click("Server", "nav a")
            page.wait_for("new Promise((done) => setTimeout(() => done(true), 3500))")
        for width, height in SIZES.items():
            for dark in (False, True):
                name = f"playground-{view.lower()}-{width}{'-dark' if dark else ''}.png"
                page.screenshot(directory / name, width, height, dark=dark)
    page.call("Emulation.clearDeviceMetricsOverride")


def counted(url: str) -> dict[str, float]:
    """Builds and evictions up to now."""
    lines = [line for line in httpx.get(f"{url}/metrics").text.splitlines() if line.startswith(COUNTERS)]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def measured(page: Page, url: str, usable: float) -> dict[str, Any]:
    """Milliseconds from a move of a slider to the first token of its answer, and what a long drag costs."""
    page.click("Ask", "nav a")
    for _ in range(2):
        page.evaluate("document.querySelector('.column:not(.live) button:last-child').click()")
    times = sorted(page.evaluate(MEASURE.replace("MOVES", str(MOVES))))
    before = counted(url)
    page.evaluate(DRAG.replace("DRAGGED", str(DRAGGED)))
    page.wait_for(f"{DONE}1")
    served = files()
    return {
        "usable_ms": round(usable),
        "first_token_ms": {"p50": round(statistics.median(times), 1), "p99": round(times[-3], 1)},
        "moves": len(times),
        "dragged": DRAGGED,
        "builds_and_evictions_while_dragged": {
            name: value - before.get(name, 0) for name, value in counted(url).items()
        },
        "page_kB": round(sum(len(file.body) for file in served.values()) / 1000, 1),
        "page_kB_compressed": round(sum(len(file.compressed) for file in served.values()) / 1000, 1),
        "errors": page.errors,
    }


def main(directory: Annotated[Path, typer.Argument(help="Where the pictures go.")]) -> None:
    """Take the pictures and print the measurements as JSON."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        server = RunningServer.start(home / "data", home / "log", ["--adapter-root", str(ADAPTERS_DIR)])
        try:
            server.wait_until_ready()
            for adapter in sorted(ADAPTERS_DIR.iterdir()):
                body = {"name": adapter.name, "path": str(adapter)}
                httpx.post(f"{server.url}/v1/adapters", json=body).raise_for_status()
            with browser(home / "profile") as page:
                usable = scene(page, server.url)
                pictures(page, directory)
                print(json.dumps(measured(page, server.url, usable), indent=2))  # noqa: T201
        finally:
            server.stop()


if __name__ == "__main__":
    typer.run(main)
