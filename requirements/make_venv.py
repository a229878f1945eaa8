"""Makes `.venv` from a lock file. `make setup` runs it; other targets check with it that .venv is whole.

It runs with any Python 3 and the standard library alone, so that it can say which Python is needed.
torch's CPU builds are on few indexes: pip's own places are tried first, then PyTorch's own index.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

VERSIONS = ("3.11", "3.12")
CANDIDATES = ("python3.11", "python3.12", "python3", "python")
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
GIGABYTE = 10**9
DISK_BYTES = {"cpu": 6 * GIGABYTE, "gpu": 16 * GIGABYTE}
"""The packages (3.9 GB for CPUs) and what pip downloads for them."""
MEMORY_BYTES = 3 * GIGABYTE
"""What `make demo` needs: two processes with vLLM, and a KV cache."""
STAMP = ".ready"
ATTEMPT = ("--retries", "1", "--timeout", "15")
INSTALL_PYTHON = """Install one and run `make setup` again:
  Debian 12:              apt-get install python3.11 python3.11-venv
  Ubuntu 24.04:           apt-get install python3.12 python3.12-venv
  Fedora:                 dnf install python3.12
  any, with uv or pyenv:  uv python install 3.12, or pyenv install 3.12
If it is not on the PATH, name it: make setup PYTHON=/path/to/python3.12"""


class SetupError(Exception):
    """The message says what is wrong and what to do."""


def check_platform(system: str, machine: str) -> None:
    """Raise SetupError if there are no builds of vLLM for this machine."""
    if system != "Linux":
        name = {"Darwin": "macOS"}.get(system, system)
        raise SetupError(
            f"lora-compose runs on Linux, and this is {name}. Use a Linux machine, a virtual machine, or the "
            "container of docs/operations/Containerfile."
        )
    if machine not in ("x86_64", "AMD64"):
        raise SetupError(
            f"The locked packages are builds for x86_64, and this machine is {machine}. Use one with x86_64."
        )


def version_of(python: str) -> str | None:
    """The version such as "3.11" of an interpreter that runs; None if it does not."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run(
            [python, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode().strip() or None


def find_python(wanted: str | None) -> str:
    """The interpreter to make the environment with: `wanted`, or the first of CANDIDATES that fits."""
    found = {name: version_of(name) for name in ([wanted] if wanted else CANDIDATES)}
    for name, version in found.items():
        if version in VERSIONS:
            return name
    named = ", ".join(f"{name} is {version}" for name, version in found.items() if version)
    if wanted:
        problem = f"PYTHON={wanted} is {found[wanted] or 'not a Python that runs'}"
    else:
        problem = f"None was found ({named or 'there is no Python'})"
    raise SetupError(f"Python {' or '.join(VERSIONS)} is needed. {problem}. {INSTALL_PYTHON}")


def check_room(place: Path, device: str) -> None:
    """Say how much disk and memory are needed. Raise SetupError if the disk is too small."""
    disk, memory = shutil.disk_usage(place).free, free_memory()
    needed = DISK_BYTES[device]
    seen = "" if memory is None else f" ({memory / GIGABYTE:.1f} GB free)"
    say(
        f"this needs {needed // GIGABYTE} GB of disk ({disk / GIGABYTE:.1f} GB free), "
        f"and serving needs {MEMORY_BYTES // GIGABYTE} GB of memory{seen}"
    )
    if disk < needed:
        raise SetupError(
            f"The disk of {place} has {disk / GIGABYTE:.1f} GB free, and {needed // GIGABYTE} GB are needed. "
            "Free some, or clone the repository to another disk."
        )
    if memory is not None and memory < MEMORY_BYTES:
        say("warning: too little memory is free to serve. End other programs before `make demo`")


def free_memory() -> int | None:
    """The bytes that Linux calls available; None where it does not say."""
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        return None
    return int(found.group(1)) * 1024 if found else None


def digest(files: list[Path], device: str) -> str:
    """What the stamp of a whole environment holds: the device, and the files it was made from."""
    text = b"".join(file.read_bytes() for file in files)
    return f"{device} {hashlib.sha256(text).hexdigest()}"


def make_venv(venv: Path, wanted: str | None) -> None:
    """Make the environment, unless there is one that has pip and the right Python."""
    python, chosen = venv / "bin" / "python", ""
    if venv.is_symlink() or venv.exists():
        version = version_of(str(python))
        wrong = wanted is not None and version != version_of(wanted)
        if version in VERSIONS and not wrong and run([str(python), "-m", "pip", "--version"], quiet=True):
            return
        if any(venv.iterdir()) and not (venv / "pyvenv.cfg").is_file() and not (venv / "bin").is_dir():
            raise SetupError(f"{venv} is not a virtual environment. Move it to another place.")
        chosen = find_python(wanted)
        say(f"replacing {venv}: it {f'has Python {version}' if version else 'is not whole'}")
        remove(venv)
    chosen = chosen or find_python(wanted)
    say(f"making {venv} with {chosen} ({version_of(chosen)})")
    if not run([chosen, "-m", "venv", str(venv)]):
        remove(venv)
        raise SetupError(
            f"{chosen} cannot make a virtual environment. On Debian and Ubuntu: "
            f"apt-get install python{version_of(chosen)}-venv"
        )


def remove(venv: Path) -> None:
    """Remove the environment. Its many files take minutes on a busy disk, so another process does that."""
    if venv.is_symlink():
        venv.unlink()
    elif venv.exists():
        old = venv.with_name(f"{venv.name}-removed-{os.getpid()}")
        venv.rename(old)
        subprocess.run(["sh", "-c", 'rm -rf "$1" >/dev/null 2>&1 &', "sh", str(old)], check=False)


def install_torch(pip: list[str], lock: Path, index: str = TORCH_INDEX) -> None:
    """Install torch's CPU build, if the lock names one. Raise SetupError, in seconds, if it is nowhere."""
    found = re.search(r"^(torch==\S+\+cpu)$", lock.read_text(), re.MULTILINE)
    if found is None:
        return
    torch = found.group(1)
    command = [*pip, "install", "-q", "--no-deps", "--only-binary=:all:", *ATTEMPT]
    if run([*command, torch], quiet=True):
        return
    say(f"pip's own places have no {torch} for this Python: trying {index}")
    if run([*command, "--index-url", index, torch], quiet=True):
        return
    raise SetupError(
        f"{torch} was found neither where pip looks (`pip config list`) nor at {index}.\n"
        "Without a network, or behind a mirror, name an index that has it, or a folder with the wheel:\n"
        "  make setup PIP_EXTRA_INDEX_URL=URL\n"
        "  make setup PIP_FIND_LINKS=DIR"
    )


def run(command: list[str], quiet: bool = False) -> bool:
    """Whether the command ended with code 0."""
    output = subprocess.DEVNULL if quiet else None
    try:
        return subprocess.run(command, stdout=output, stderr=output).returncode == 0
    except OSError:
        return False


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def set_up(root: Path, options: argparse.Namespace) -> None:
    """Make the environment whole, or find that it is. Raises SetupError."""
    venv, lock = options.venv, root / "requirements" / f"{options.device}.lock"
    if not lock.is_file():
        raise SetupError(f"DEVICE={options.device} is not known. Use DEVICE=cpu or DEVICE=gpu.")
    if options.packages_only:
        install_packages(root, lock, options)
        return
    stamp, now = venv / STAMP, digest([lock, root / "pyproject.toml", root / "setup.py"], options.device)
    version = version_of(str(venv / "bin" / "python"))
    is_wanted = not options.python or version_of(options.python) == version
    if version in VERSIONS and is_wanted and stamp.is_file() and stamp.read_text() == now:
        return
    pip = install_packages(root, lock, options)
    if not run([*pip, "install", "-qq", "--no-deps", "--no-build-isolation", "--editable", str(root)]):
        raise SetupError("pip could not install lora-compose. Its message is above.")
    stamp.write_text(now)


def install_packages(root: Path, lock: Path, options: argparse.Namespace) -> list[str]:
    """Install the packages of the lock. Returns the command of the environment's pip."""
    venv, stamp = options.venv, options.venv / STAMP
    check_platform(platform.system(), platform.machine())
    check_room(root, options.device)
    if stamp.is_file() and stamp.read_text().split(" ")[0] not in (options.device, ""):
        say(f"replacing {venv}: it is for another DEVICE")
        remove(venv)
    make_venv(venv, options.python or None)
    count = len(re.findall("^[^#\\n]+==", lock.read_text(), re.MULTILINE))
    say(f"installing {count} packages from {lock}: about three minutes, less with a warm pip cache")
    pip = [str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    install_torch(pip, lock, options.torch_index)
    if not run([*pip, "install", "-qq", "--no-deps", "--requirement", str(lock)]):
        raise SetupError("pip could not install the packages of the lock. Its message is above.")
    return pip


def main() -> int:
    parser = argparse.ArgumentParser(description="Make .venv from a lock file.")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--python", default="")
    parser.add_argument("--venv", type=Path, default=Path(".venv"))
    parser.add_argument("--torch-index", default=TORCH_INDEX)
    parser.add_argument("--packages-only", action="store_true")
    try:
        set_up(Path(__file__).resolve().parents[1], parser.parse_args())
    except SetupError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
