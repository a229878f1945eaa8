"""The code blocks of the documentation: which a test runs, and why the others are not run.

`python -m tests.docs.blocks` prints the counts. A block is run unless `<!-- not run: REASON -->` stands in
front of it, or PAGES_NOT_RUN has a reason for its page. A block ```text directly after a run block lists
lines that its output must have; … in a line stands for any text.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
LANGUAGES: Final = ("sh", "python")
PAGES_NOT_RUN: Final = {
    "docs/benchmarks.md": "measures for minutes; tests/benchmarks run the same commands in small",
    "docs/clients.md": "needs client packages that are not part of this project",
    "docs/composition-quality.md": "measures for hours",
    "docs/data.md": "fragments with names to replace; tests/training/data run the commands",
    "docs/evaluation.md": "fragments with names to replace; tests/training/evaluation run the commands",
    "docs/gpu.md": "needs a GPU",
    "docs/models.md": "downloads a model; tests/adapters/models run the commands",
    "docs/openai-clients.md": "needs client packages that are not part of this project",
    "docs/operations.md": "parts of deployments; tests/test_deployment.py and tests/server run them",
    "docs/planning.md": "measures for half an hour",
    "docs/playground.md": "takes pictures in Chromium for minutes",
    "docs/reference/http-examples.md": "recorded from a server, and changes its adapters",
    "docs/training.md": "trains for minutes; tests/training run the commands in small",
}


@dataclass(frozen=True)
class Block:
    """A code block. `line` is that of its first code line. `reason` says why it is not run; None if it is."""

    page: str
    line: int
    language: str
    code: str
    reason: str | None
    expected: tuple[str, ...] = ()


FENCE = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+?) -->\n+)?"
    r"^(?P<indent> *)```(?P<language>[a-z]+)\n(?P<code>.*?)^(?P=indent)```$"
    r"(?:\n+^(?P=indent)```text\n(?P<expected>.*?)^(?P=indent)```$)?",
    re.MULTILINE | re.DOTALL,
)


def blocks_in(page: str, text: str) -> Iterator[Block]:
    """The blocks of a page in the languages that are run, in order."""
    for match in FENCE.finditer(text):
        if match["language"] not in LANGUAGES:
            continue
        expected = tuple(line for line in (match["expected"] or "").splitlines() if line.strip())
        line = text.count("\n", 0, match.start("code")) + 1
        reason = PAGES_NOT_RUN.get(page, match["reason"])
        yield Block(page, line, match["language"], match["code"], reason, expected)


def all_blocks() -> list[Block]:
    """The blocks of the README and of every page."""
    pages = ("README.md", *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md"))))
    return [block for page in pages for block in blocks_in(page, (ROOT / page).read_text())]


def main() -> None:
    """Print how many blocks are run, and how many are not for each reason."""
    blocks = all_blocks()
    reasons = Counter(block.reason for block in blocks)
    pages = len({block.page for block in blocks})
    sys.stdout.write(
        f"{len(blocks)} code blocks on {pages} pages: {reasons.pop(None, 0)} are run by a test\n"
    )
    sys.stdout.writelines(f"{count:4} not run: {reason}\n" for reason, count in reasons.most_common())


if __name__ == "__main__":
    main()
