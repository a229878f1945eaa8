"""The arrows between the rooms go one way, and vLLM is imported in one of them only."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = {
    "adapters": {"adapters"},
    "server": {"adapters", "server"},
    "training": {"adapters", "training"},
    "benchmarks": {"adapters", "benchmarks"},
}
FACES = {
    "training": ("lora_compose.server.client",),
    "benchmarks": ("lora_compose.server.client",),
}
"""What a room may import of rooms that it may not import as a whole."""
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


def may_import(room: str, name: str) -> bool:
    """Whether the rooms' order allows a file of `room` to import the module `name`."""
    top = name.partition(".")[0]
    in_face = any(f"{name}.".startswith(f"{face}.") for face in FACES.get(room, ()))
    return top not in ALLOWED or top in ALLOWED[room] or in_face


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_rooms_below_it_and_faces(room: str) -> None:
    for path in files(room):
        names = set(imported(path))
        assert {name for name in names if not may_import(room, name)} == set(), path
        assert not {name.partition(".")[0] for name in names} & FORBIDDEN_LIBRARIES[room], path


def test_the_client_face_loads_no_engine_no_torch_and_no_web_framework() -> None:
    modules = [
        f"lora_compose.server.client.{path.stem}"
        for path in files("server/client")
        if path.stem != "__init__"
    ]
    code = f"import sys, {', '.join(modules)}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert modules
    assert not set(done.stdout.split()) & {"vllm", "torch", "starlette", "fastapi", "transformers"}


def test_only_the_engine_room_imports_vllm() -> None:
    for path in files("server"):
        if VLLM_ROOM not in path.parents:
            assert "vllm" not in {name.partition(".")[0] for name in imported(path)}, path


@pytest.mark.parametrize("room", ALLOWED)
def test_a_file_is_named_after_what_it_does(room: str) -> None:
    assert not {path.stem for path in files(room)} & {"utils", "helpers", "common", "misc"}
