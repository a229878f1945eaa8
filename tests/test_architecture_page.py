"""docs/architecture.md names every package. Every file that it and CONTRIBUTING.md name exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("docs/architecture.md", "CONTRIBUTING.md")
TOP = ("adapters", "server", "training", "benchmarks")
NOT_DRAWN = {"adapters/registry/migrations", "adapters/registry/migrations/versions"}


def drawn() -> set[str]:
    """The packages in the page's first drawing: a line's indent is its level."""
    block = (ROOT / PAGES[0]).read_text().split("```")[1]
    found, stack = set(), list[str]()
    for line in block.strip().splitlines():
        match = re.match(r"( *)([a-z0-9_]+)/ ", line)
        assert match, line
        del stack[len(match[1]) // 2 :]
        stack.append(match[2])
        found.add("/".join(stack))
    return found


def packages() -> set[str]:
    files = (path for top in TOP for path in (ROOT / top).rglob("__init__.py"))
    names = {str(path.parent.relative_to(ROOT)) for path in files}
    return {name for name in names if not name.startswith("benchmarks/gpu/")} - NOT_DRAWN


def test_the_drawing_has_every_package_and_no_other() -> None:
    assert drawn() == packages()


@pytest.mark.parametrize("page", PAGES)
def test_every_place_that_a_page_names_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    named = set(re.findall(rf"`((?:{'|'.join((*TOP, 'tests', 'docs'))})/[\w./-]+)`", text))
    assert named
    assert {name for name in named if not (ROOT / name).exists()} == set()
