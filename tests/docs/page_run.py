"""Runs the code blocks of one page in order, in one shell, as a reader types them.

The folder of the run has the repository's folders. The address of the page is replaced by the server's.
"""

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.docs.blocks import ROOT, Block

PAGE_URL: Final = "http://127.0.0.1:8000"
MARK: Final = "@@ block"
SECONDS: Final = 300


@dataclass(frozen=True)
class PageRun:
    """`outputs` has what each block wrote, by its line. After a failure the last one may be incomplete."""

    exit_code: int
    outputs: Mapping[int, str]


def run_blocks(blocks: Sequence[Block], home: Path, url: str, **environment: str) -> PageRun:
    """Run `blocks`; the first command that fails ends the run. Files are written below `home` only."""
    place = home / "clone"
    place.mkdir(parents=True)
    for entry in ROOT.iterdir():
        if entry.name not in (".git", ".venv"):
            (place / entry.name).symlink_to(entry)
    (place / ".venv").symlink_to(sys.prefix)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", _script(blocks, url)],
        cwd=place,
        env=os.environ
        | {"HOME": str(home), "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}", "LORA_COMPOSE_URL": url}
        | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    parts = re.split(rf"^{MARK} (\d+)\n", done.stdout, flags=re.MULTILINE)
    return PageRun(done.returncode, dict(zip(map(int, parts[1::2]), parts[2::2], strict=True)))


def _script(blocks: Sequence[Block], url: str) -> str:
    lines = []
    for block in blocks:
        code = block.code.replace(PAGE_URL, url)
        lines.append(f"printf '\\n{MARK} {block.line}\\n'")
        lines.append(code if block.language == "sh" else f"python - <<'END_OF_BLOCK'\n{code}END_OF_BLOCK")
    return "\n".join(lines)


def missing_lines(expected: Sequence[str], output: str) -> list[str]:
    """The lines of `expected` that `output` does not have. Blanks count as one; … stands for any text."""
    found = [" ".join(line.split()) for line in output.splitlines()]
    missing = []
    for line in expected:
        pattern = ".*".join(map(re.escape, " ".join(line.split()).split("…")))
        if not any(re.fullmatch(pattern, seen) for seen in found):
            missing.append(line)
    return missing
