"""What the container file and the systemd unit name exists, as far as can be seen without either."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from lora_compose.server.config import ServerConfig

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
    assert "requirements/${DEVICE}.lock" in CONTAINERFILE
    assert all((ROOT / "requirements" / f"{device}.lock").is_file() for device in ("cpu", "gpu"))


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
    from lora_compose.server.serve import DRAIN_SECONDS

    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.MULTILINE)
    assert int(seconds) > DRAIN_SECONDS


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", UNIT.read_text(), flags=re.MULTILINE)
    unit = tmp_path / UNIT.name
    unit.write_text(re.sub(r"^User=.*$", "User=root", text, flags=re.MULTILINE))
    checked = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
