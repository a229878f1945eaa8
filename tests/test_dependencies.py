"""Every library that the code imports is declared in pyproject.toml, not only installed by chance."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("adapters", "server", "training", "benchmarks")
OURS = {"lora_compose", "tests"}
FUZZER = "schemathesis"
"""In an environment of its own (`make fuzz`)."""
CLIENTS = {"lorax", "ollama", "text_generation"}
"""In an environment of their own (`tests/campaigns/foreign_clients.py`)."""


def imported(folder: Path) -> Iterator[tuple[str, Path]]:
    """(top-level module, file) of every import, also those inside functions."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((alias.name.partition(".")[0], path) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.partition(".")[0], path


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(*extras: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"]]
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    found = (re.match(r"[A-Za-z0-9._-]+", line) for line in lines)
    return {normalized(match[0]) for match in found if match}


@pytest.mark.parametrize(
    ("folder", "extras"),
    [*((name, ("cpu", "gpu", "eval")) for name in PACKAGES), ("tests", ("cpu", "gpu", "eval", "dev"))],
)
def test_every_imported_library_is_declared(folder: str, extras: tuple[str, ...]) -> None:
    known, distributions = declared(*extras), packages_distributions()
    missing = {}
    for module, path in imported(ROOT / folder):
        if module in sys.stdlib_module_names or module in {*OURS, FUZZER, *CLIENTS}:
            continue
        owners = {normalized(owner) for owner in distributions.get(module, [module])}
        if not owners & known:
            missing[module] = str(path.relative_to(ROOT))
    assert missing == {}, "add these to [project.dependencies]"
