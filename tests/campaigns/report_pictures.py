"""Pictures of the report of `lora-compose bench`, in a browser.

python -m tests.campaigns.report_pictures benchmarks/results/embedded.json docs/images
"""

import tempfile
from itertools import product
from pathlib import Path
from typing import Annotated

import typer

from lora_compose.benchmarks.serving.report.report import write_reports
from lora_compose.benchmarks.serving.results.document import read_result
from tests.browser import browser

SIZES = {1280: 1000, 390: 844}


def main(
    result: Annotated[Path, typer.Argument(help="A result of `lora-compose bench serve`.")],
    directory: Annotated[Path, typer.Argument(help="Where the pictures go.")],
) -> None:
    """Take the pictures. Fails if the page is wider than the window, or reports an error."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        html = Path(temporary) / "report.html"
        write_reports(read_result(result), html, None, quiet=True)
        with browser(Path(temporary) / "profile") as page:
            page.open(html.as_uri())
            page.wait_for("document.querySelectorAll('.keeps li').length > 0")
            for (width, height), dark in product(SIZES.items(), (False, True)):
                name = f"report-{width}{'-dark' if dark else ''}.png"
                page.screenshot(directory / name, width, height, dark=dark)
                assert page.evaluate("document.documentElement.scrollWidth") <= width, name
            assert page.errors == []


if __name__ == "__main__":
    typer.run(main)
