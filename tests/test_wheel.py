"""The wheel holds packages under `lora_compose` only, so that a package named `adapters` fits beside it."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.installed_wheel import ROOT, build_wheel, install

RESULT = ROOT / "benchmarks" / "results" / "embedded.json"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`lora-compose` of an environment that has nothing of this checkout."""
    return install(wheel, tmp_path_factory.mktemp("installed") / "an environment, größer") / "lora-compose"


def run(command: Path, *arguments: str, cwd: Path) -> str:
    """Its output, run in a directory outside the checkout."""
    return subprocess.run(
        [str(command), *arguments], cwd=cwd, check=True, capture_output=True, text=True
    ).stdout


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
        "server/playground/static/index.html",
        "server/playground/static/vendor/LICENSE.preact",
        "adapters/registry/migrations/env.py",
    ],
)
def test_the_wheel_holds_the_files_that_the_code_reads(wheel: Path, name: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert f"lora_compose/{name}" in archive.namelist()


def test_the_wheel_has_the_license(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert any(name.endswith(".dist-info/licenses/LICENSE") for name in archive.namelist())


def test_the_installed_code_is_the_wheel_s(command: Path, tmp_path: Path) -> None:
    code = "import lora_compose.server.config as c; print(c.__file__, c.EMBEDDED_BASE.is_dir())"
    python = [str(command.with_name("python")), "-c", code]
    shown = subprocess.run(python, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert shown.startswith(str(command.parents[1]))
    assert shown.endswith("True\n")


def test_its_commands_run_outside_the_checkout(command: Path, tmp_path: Path) -> None:
    assert "lora-compose 0." in run(command, "--version", cwd=tmp_path)
    for name in ("serve", "adapters", "train", "bench", "doctor"):
        assert "Usage: lora-compose" in run(command, name, "--help", cwd=tmp_path)


def test_it_makes_the_report_page_with_its_styles(command: Path, tmp_path: Path) -> None:
    run(command, "bench", "report", str(RESULT), "--html", "page.html", cwd=tmp_path)
    page = (tmp_path / "page.html").read_text()
    assert "<style" in page
    assert json.loads(RESULT.read_text())["base"] in page


def test_it_plans_training_from_its_own_tables(command: Path, tmp_path: Path) -> None:
    assert "GB" in run(command, "train", "plan", "--model", "llama-3-70b", cwd=tmp_path)
