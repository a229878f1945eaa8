"""Builds the wheel, and installs it into an environment that borrows the libraries of this one."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def build_wheel(folder: Path) -> Path:
    """The wheel of the files that git knows or would add, without tests and docs."""
    source = folder / "source"
    for name in files_of_git():
        if not name.startswith(("tests/", "docs/")):
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "-q", "--no-deps"]
    subprocess.run([*command, "--no-build-isolation", "-w", str(folder), str(source)], check=True)
    (built,) = folder.glob("lora_compose-*.whl")
    return built


def files_of_git() -> list[str]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    tracked = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [name for name in tracked.split("\0") if name and (ROOT / name).is_file()]


def install(wheel: Path, home: Path) -> Path:
    """Install the wheel into a new environment at `home`, without a network. Returns its bin directory."""
    venv.create(home, with_pip=False, symlinks=True)
    (site,) = home.glob("lib/python*/site-packages")
    libraries = {path for path in sys.path if path.endswith("site-packages")} | {
        sysconfig.get_path("purelib")
    }
    (site / "zz_borrowed.pth").write_text("\n".join(sorted(libraries)) + "\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(home / "bin/python")]
    subprocess.run([*pip, "install", "-q", "--no-deps", "--no-index", str(wheel)], check=True)
    return home / "bin"
