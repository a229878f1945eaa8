"""Benchmarks on the page: start one, watch it, and open its report."""

import json
from pathlib import Path

import httpx

from tests.browser import Page, needs_browser
from tests.server.app_without_engine import OPERATOR_KEY, app_without_engine
from tests.server.playground.steps import downloaded, opened

pytestmark = needs_browser
BENCHMARK = "section[aria-label=Benchmark]"


def test_a_benchmark_is_started_watched_and_cancelled(page: Page) -> None:
    page.fill("#weight-roll", 1)
    page.fill("#weight-upper", 0.5)
    page.click("Server", "nav a")
    page.wait_for_text("2 adapters as a stack and as a merge", f"{BENCHMARK} p")
    page.click("Start", f"{BENCHMARK} button")
    page.wait_for_text("running", f"{BENCHMARK} td")
    page.wait_for_text("roll, upper", f"{BENCHMARK} td")
    page.click("Cancel")
    page.wait_for_text("cancelled", f"{BENCHMARK} td")


def write_benchmark(home: Path) -> None:
    """A benchmark that has ended, as the server stores it."""
    folder = home / "data" / "benchmarks" / "bench-1"
    folder.mkdir(parents=True)
    run = {"id": folder.name, "created": 1, "plan": {"adapters": ["roll"]}, "status": "succeeded"}
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "report.html").write_text("<!doctype html><title>the report</title>")


def test_a_report_is_a_link_without_a_key(tmp_path: Path, tab: Page) -> None:
    write_benchmark(tmp_path)
    with app_without_engine(tmp_path) as app:
        for page in opened(tab, app.url):
            page.click("Server", "nav a")
            page.wait_for_text("Open the report", f"{BENCHMARK} td")
            address = page.evaluate(f"document.querySelector('{BENCHMARK} td a').href")
            assert "the report" in httpx.get(address).text


def test_a_report_is_a_download_with_a_key_which_is_in_no_address(tmp_path: Path, tab: Page) -> None:
    write_benchmark(tmp_path)
    with app_without_engine(tmp_path, api_keys=[OPERATOR_KEY]) as app:
        for page in opened(tab, app.admin_url):
            page.fill(".key input", OPERATOR_KEY)
            page.click("Use")
            page.click("Server", "nav a")
            text = downloaded(page, "Download the report", tmp_path / "bench-1.html")
            assert "the report" in text
            assert [address for address in page.requests if OPERATOR_KEY in address] == []
