"""The arrows between the rooms go one way, and vLLM is imported in one of them only."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {
    "adapters": {"adapters"},
    "server": {"adapters", "server"},
    "training": {"adapters", "training"},
    "benchmarks": {"adapters", "benchmarks"},
}
FORBIDDEN_LIBRARIES = {
    "adapters": {"vllm", "starlette", "fastapi", "uvicorn", "trl"},
    "server": {"trl", "datasets"},
    "training": {"vllm", "starlette", "fastapi"},
    "benchmarks": {"vllm", "starlette", "fastapi", "trl"},
}
VLLM_ROOM = ROOT / "server" / "engine"


def files(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Every module a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_rooms_below_it(room: str) -> None:
    for path in files(room):
        tops = {name.partition(".")[0] for name in imported(path)}
        assert tops & set(ALLOWED) <= ALLOWED[room], path
        assert not tops & FORBIDDEN_LIBRARIES[room], path


def test_only_the_engine_room_imports_vllm() -> None:
    for path in files("server"):
        if VLLM_ROOM not in path.parents:
            assert "vllm" not in {name.partition(".")[0] for name in imported(path)}, path


@pytest.mark.parametrize("room", ALLOWED)
def test_a_file_is_named_after_what_it_does(room: str) -> None:
    assert not {path.stem for path in files(room)} & {"utils", "helpers", "common", "misc"}
