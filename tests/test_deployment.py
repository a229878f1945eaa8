"""What the container file and the systemd unit name exists, as far as can be seen without either."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

import pytest

from lora_compose.server.config import ServerConfig
from tests.installed_wheel import files_of_git

ROOT = Path(__file__).resolve().parents[1]
OPERATIONS = ROOT / "docs" / "operations"
CONTAINERFILE = (OPERATIONS / "Containerfile").read_text().replace("\\\n", " ")
UNIT = OPERATIONS / "lora-compose.service"


def options(command: str) -> set[str]:
    return set(re.findall(r"--[a-z-]+", command))


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} (.+)$", CONTAINERFILE, re.MULTILINE)


def test_everything_the_image_copies_is_there() -> None:
    own = [line for line in instructions("COPY") if not line.startswith("--from")]
    sources = {source for line in own for source in line.split()[:-1]}
    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert packages <= sources


def test_both_locks_are_there() -> None:
    assert "make_venv.py --packages-only" in CONTAINERFILE
    assert all((ROOT / "requirements" / f"{device}.lock").is_file() for device in ("cpu", "gpu"))


def test_every_argument_of_make_venv_exists() -> None:
    (step,) = [line for line in instructions("RUN") if "make_venv" in line]
    command = [sys.executable, str(ROOT / "requirements" / "make_venv.py"), "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert options(step) <= options(shown)


def ignored(name: str) -> bool:
    """Whether .dockerignore leaves the file out. The last pattern that matches decides."""
    found = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!")
            parts = [name, *map(str, PurePosixPath(name).parents)]
            if any(matches(part, pattern) for part in parts):
                found = not line.startswith("!")
    return found


def matches(part: str, pattern: str) -> bool:
    names = [part, PurePosixPath(part).name] if pattern.startswith("**/") else [part]
    return any(fnmatchcase(name, pattern.removeprefix("**/")) for name in names)


def context() -> list[str]:
    return [name for name in files_of_git() if not ignored(name)]


def test_the_build_context_is_small_and_holds_what_is_installed() -> None:
    names = context()
    size = sum((ROOT / name).stat().st_size for name in names)
    assert size < 18_000_000, size  # 4.8 MB of it are the adapters for SmolLM2
    assert not [name for name in names if name.startswith(("tests/", "docs/", ".git", "benchmarks/results"))]
    assert {"setup.py", "requirements/cpu.lock", "training/testbed/base/model.safetensors"} <= set(names)
    assert ignored("server/__pycache__/x.pyc")
    assert ignored(".venv/bin/python")


def test_what_the_image_copies_is_enough_to_install_from(tmp_path: Path) -> None:
    """The COPY steps into an empty directory, and the last RUN there, which makes a wheel."""
    sources = [
        source for line in instructions("COPY") if "--from" not in line for source in line.split()[:-1]
    ]
    for name in context():
        if any(name == source or name.startswith(f"{source}/") for source in sources):
            target = tmp_path / "opt" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    (step,) = [line for line in instructions("RUN") if "--editable" in line]
    words = json.loads(step)
    assert words[:3] == [".venv/bin/python", "-m", "pip"]
    command = [sys.executable, "-m", "pip", "wheel", "-q", *words[4:-2], "-w", str(tmp_path), "."]
    subprocess.run(command, cwd=tmp_path / "opt", check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        files = set(archive.namelist())
    for name in ("server/cli.py", "training/testbed/base/model.safetensors", "benchmarks/serving/cli.py"):
        assert f"lora_compose/{name}" in files


def test_signals_reach_the_server_and_any_user_may_write_its_data() -> None:
    """The exec form: a shell between would keep signals to itself. Users of group 0 have no name."""
    for name in ("ENTRYPOINT", "CMD"):
        assert isinstance(json.loads(instructions(name)[-1]), list)
    assert isinstance(json.loads(instructions("HEALTHCHECK")[0].partition("CMD ")[2]), list)
    assert instructions("STOPSIGNAL") == ["SIGTERM"]
    assert "install -d -o 10001 -g 0 -m 0770 /data" in CONTAINERFILE


def test_the_image_runs_as_nobody_in_particular_and_says_how_it_is() -> None:
    assert instructions("USER") == ["10001"]
    assert instructions("VOLUME") == ["/data"]
    assert "/livez" in instructions("HEALTHCHECK")[0]


@pytest.mark.parametrize(
    "command",
    [instructions("CMD")[-1], *re.findall(r"^ExecStart=(.+)$", UNIT.read_text(), re.MULTILINE)],
)
def test_every_option_exists(command: str) -> None:
    known = {f"--{name.replace('_', '-')}" for name in ServerConfig.__dataclass_fields__}
    assert options(command)
    assert options(command) <= known


def test_a_stop_leaves_the_server_time_to_drain() -> None:
    from lora_compose.server.uvicorn_server import DRAIN_SECONDS

    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.MULTILINE)
    assert int(seconds) > DRAIN_SECONDS


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", UNIT.read_text(), flags=re.MULTILINE)
    unit = tmp_path / UNIT.name
    unit.write_text(re.sub(r"^User=.*$", "User=root", text, flags=re.MULTILINE))
    checked = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
