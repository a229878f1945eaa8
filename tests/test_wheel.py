"""The wheel holds packages under `lora_compose` only, so that a package named `adapters` fits beside it."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in tracked.split("\0"):
        path = ROOT / name
        if name and path.is_file() and not name.startswith(("tests/", "docs/")):
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "-q", "--no-deps"]
    subprocess.run([*command, "--no-build-isolation", "-w", str(folder), str(source)], check=True)
    (built,) = folder.glob("lora_compose-*.whl")
    return built


def test_the_wheel_holds_no_top_level_package_but_lora_compose(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"lora_compose"}


def test_it_is_imported_beside_a_package_named_adapters(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "adapters").mkdir(parents=True)
    (site / "adapters" / "__init__.py").write_text("__version__ = 'AdapterHub'\n")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r});"
        "import adapters, lora_compose.adapters.names as ours;"
        "print(adapters.__version__, ours.__file__)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert result.stdout.split() == ["AdapterHub", str(site / "lora_compose" / "adapters" / "names.py")]


@pytest.mark.parametrize(
    "name",
    [
        "training/testbed/base/model.safetensors",
        "training/testbed/trained/roll/adapter_model.safetensors",
        "training/recipes/sft-lora.yaml",
        "training/recipes/data/roll.jsonl",
        "training/planning/measured.json",
        "benchmarks/serving/report/page.css",
    ],
)
def test_the_wheel_holds_the_files_that_the_code_reads(wheel: Path, name: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert f"lora_compose/{name}" in archive.namelist()
