"""What `make setup` does on machines that lack something. Wheels of a few bytes stand in for torch."""

import importlib.util
import os
import subprocess
import sys
import time
import zipfile
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
LOCK = "# a comment\ntorch==2.13.0+cpu\n"
NOWHERE = "http://127.0.0.1:9/whl/cpu"


@pytest.fixture(scope="module")
def make_venv() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_venv", ROOT / "requirements" / "make_venv.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def add_wheel(index: Path, version: str) -> None:
    """Put a torch of `version` into a simple index of directories."""
    folder = index / "torch"
    folder.mkdir(parents=True, exist_ok=True)
    info, name = f"torch-{version}.dist-info", f"torch-{version}-py3-none-any.whl"
    with zipfile.ZipFile(folder / name, "w") as wheel:
        wheel.writestr("torch.py", "")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    links = "".join(f'<a href="{path.name}">{path.name}</a>' for path in folder.glob("*.whl"))
    (folder / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")


@pytest.fixture
def plain_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index without local versions, as the usual one is, and a pip that looks only there."""
    index = tmp_path / "plain"
    add_wheel(index, "2.13.0")
    configured = tmp_path / "pip.conf"
    configured.write_text(f"[global]\nindex-url = {index.as_uri()}\n")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(configured))
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    # The machine's own configuration names other places, and pip reads it beside this one.
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-config"))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "no-config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return index


@pytest.fixture
def pip(tmp_path: Path) -> list[str]:
    """pip that installs into a directory of the test."""
    return [sys.executable, "-c", _PIP, str(tmp_path / "target")]


_PIP = """
import subprocess, sys
target, *words = sys.argv[1:]
sys.exit(subprocess.run([sys.executable, "-m", "pip", *words, "--target", target]).returncode)
"""


def installed(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "target").glob("torch-*.dist-info"))


def lock_of(tmp_path: Path) -> Path:
    lock = tmp_path / "cpu.lock"
    lock.write_text(LOCK)
    return lock


def test_torch_comes_from_pip_s_own_places_if_they_have_it(
    make_venv: ModuleType, plain_index: Path, pip: list[str], tmp_path: Path
) -> None:
    add_wheel(plain_index, "2.13.0+cpu")
    make_venv.install_torch(pip, lock_of(tmp_path), NOWHERE)
    assert installed(tmp_path) == ["torch-2.13.0+cpu.dist-info"]


def test_with_the_plain_index_alone_it_comes_from_torch_s_index(
    make_venv: ModuleType,
    plain_index: Path,
    pip: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    add_wheel(tmp_path / "theirs", "2.13.0+cpu")
    make_venv.install_torch(pip, lock_of(tmp_path), (tmp_path / "theirs").as_uri())
    assert installed(tmp_path) == ["torch-2.13.0+cpu.dist-info"]
    assert "trying file:" in capsys.readouterr().out


def test_nowhere_it_ends_in_seconds_with_the_command_that_helps(
    make_venv: ModuleType, plain_index: Path, pip: list[str], tmp_path: Path
) -> None:
    began = time.monotonic()
    with pytest.raises(make_venv.SetupError, match="make setup PIP_EXTRA_INDEX_URL=URL"):
        make_venv.install_torch(pip, lock_of(tmp_path), NOWHERE)
    assert time.monotonic() - began < 60


def test_the_lock_for_gpus_needs_no_such_index(make_venv: ModuleType) -> None:
    make_venv.install_torch(["false"], ROOT / "requirements" / "gpu.lock", NOWHERE)


@pytest.mark.parametrize(
    ("system", "machine", "said"),
    [("Darwin", "arm64", "this is macOS"), ("Windows", "AMD64", "Windows"), ("Linux", "aarch64", "aarch64")],
)
def test_a_machine_without_builds_is_told_so(
    make_venv: ModuleType, system: str, machine: str, said: str
) -> None:
    with pytest.raises(make_venv.SetupError, match=said):
        make_venv.check_platform(system, machine)
    make_venv.check_platform("Linux", "x86_64")


def fake_python(folder: Path, name: str, version: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(0o755)
    return path


def test_no_python_that_fits_is_told_with_what_to_install(
    make_venv: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = fake_python(tmp_path / "bin", "python3", "3.9")
    monkeypatch.setenv("PATH", str(python.parent))
    with pytest.raises(make_venv.SetupError, match=r"python3 is 3\.9(.|\n)*apt-get install python3\.12"):
        make_venv.find_python(None)
    with pytest.raises(make_venv.SetupError, match="PYTHON=/none is not a Python that runs"):
        make_venv.find_python("/none")
    fake_python(tmp_path / "bin", "python3.12", "3.12")
    assert make_venv.find_python(None) == "python3.12"


@pytest.mark.parametrize("version", ["3.9", "3.13", ""])
def test_an_environment_of_another_python_or_a_broken_one_is_replaced(
    make_venv: ModuleType, tmp_path: Path, version: str
) -> None:
    old = tmp_path / "venv"
    (old / "bin").mkdir(parents=True)
    (old / "pyvenv.cfg").touch()
    (old / "left").touch()
    if version:
        fake_python(old / "bin", "python", version)
    make_venv.make_venv(old, sys.executable)
    assert not (old / "left").exists()
    assert make_venv.version_of(str(old / "bin" / "python")) == make_venv.version_of(sys.executable)
    make_venv.make_venv(old, None)  # it is whole now, and stays


def test_an_environment_stays_until_there_is_a_python_for_the_next(
    make_venv: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    with pytest.raises(make_venv.SetupError, match="PYTHON=/none"):
        make_venv.make_venv(tmp_path / "venv", "/none")
    assert (tmp_path / "venv" / "bin").is_dir()


def test_a_directory_that_is_no_environment_is_left_alone(make_venv: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(make_venv.SetupError, match="is not a virtual environment"):
        make_venv.make_venv(tmp_path, None)
    assert (tmp_path / "mine").exists()


def test_too_little_disk_is_told_before_anything_is_made(
    make_venv: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(make_venv.DISK_BYTES, "cpu", 10**18)
    options = Namespace(venv=tmp_path / "venv", device="cpu", python="", packages_only=False, torch_index="")
    with pytest.raises(make_venv.SetupError, match="GB free"):
        make_venv.set_up(ROOT, options)
    assert not options.venv.exists()
    assert "of memory" in capsys.readouterr().out


def test_an_unknown_device_is_told(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "requirements" / "make_venv.py"), "--device", "tpu"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (
        1,
        "error: DEVICE=tpu is not known. Use DEVICE=cpu or DEVICE=gpu.\n",
    )


def test_the_python_versions_are_those_of_the_package(make_venv: ModuleType) -> None:
    declared = (ROOT / "pyproject.toml").read_text()
    assert 'requires-python = ">=3.11,<3.13"' in declared
    assert make_venv.VERSIONS == ("3.11", "3.12")
