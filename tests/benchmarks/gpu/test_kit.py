"""The kit's script and lists: what they name is what the product needs and what the lock holds."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
GPU = ROOT / "benchmarks" / "gpu"
SCRIPT = GPU / "build_kit.sh"
USED_THERE = (
    *("adapters", "server", "benchmarks/gpu", "benchmarks/serving"),
    *("training/testbed/demo", "training/testbed/language.py", "training/testbed/paths.py"),
)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names_of(path: Path) -> dict[str, str]:
    """Each package of a list, with its version or an empty text."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {normal(name): version for name, _, version in (line.partition("==") for line in lines)}


LOCK, KIT = names_of(ROOT / "requirements" / "gpu.lock"), names_of(GPU / "kit.txt")
MACHINE = names_of(GPU / "machine.txt")


def files() -> Iterator[Path]:
    for path in (ROOT / place for place in USED_THERE):
        yield from [path] if path.is_file() else path.rglob("*.py")


def imported(file: Path) -> Iterator[str]:
    """The top-level name of every module that a file imports."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def test_the_script_is_valid_bash() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)


def test_every_package_has_one_version() -> None:
    assert [name for name, version in KIT.items() if not version and name not in LOCK] == []
    assert [name for name, version in KIT.items() if version and LOCK.get(name, version) != version] == []


def test_no_package_is_both_in_the_kit_and_on_the_machine() -> None:
    assert not KIT.keys() & MACHINE.keys()
    assert MACHINE.keys() <= LOCK.keys()


def test_the_kit_and_the_machine_have_every_library_that_is_imported_there() -> None:
    distributions = packages_distributions()
    names = (
        {name for file in files() for name in imported(file)}
        - set(sys.stdlib_module_names)
        - {"lora_compose", "vllm"}
    )
    missing = {
        name
        for name in names
        if not {normal(found) for found in distributions.get(name, [name])} & (KIT.keys() | MACHINE.keys())
    }
    assert missing == set()


def test_the_kit_s_entry_points_are_the_project_s() -> None:
    rows = re.search(r"<<'ROWS'\n(.*?)\nROWS", SCRIPT.read_text(), re.DOTALL)
    assert rows
    command = [sys.executable, "-", str(ROOT / "pyproject.toml")]
    done = subprocess.run(command, input=rows[1], capture_output=True, text=True, check=True)
    assert "[vllm.general_plugins]\nlora_compose = lora_compose.server.engine.plugin:install\n" in done.stdout
    assert "serve = lora_compose.server.cli:" in done.stdout


@pytest.mark.parametrize("before", ["nothing", "text", "directory", "link"])
def test_the_printed_commands_make_the_link_to_the_checkout(tmp_path: Path, before: str) -> None:
    command = re.search(r"^link='(.*)'$", SCRIPT.read_text(), re.MULTILINE)
    assert command
    (tmp_path / "server").mkdir()
    link = tmp_path / ".typing" / "lora_compose"
    if before != "nothing":
        link.parent.mkdir()
    if before == "text":
        link.write_text("..")
    elif before == "directory":
        (link / "server").mkdir(parents=True)
    elif before == "link":
        link.symlink_to("..")
    subprocess.run(["bash", "-e", "-c", command[1]], cwd=tmp_path, check=True)
    assert link.resolve() == tmp_path
    assert (tmp_path / "server").is_dir()
