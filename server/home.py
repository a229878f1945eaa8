"""What libraries expect: a home directory, a user name, a directory for temporary files, shared memory.

Containers run as users that have no entry in the list of users, on a root file system that is read-only.
"""

import os
import pwd
import tempfile
from pathlib import Path

from lora_compose.adapters.errors import CommandCode, LoraComposeError

NAME = "lora-compose"
SHARED = Path("/dev/shm")
SHARED_BYTES = 1 << 20
"""Enough for semaphores and queues. Several workers need more."""
TEMPORARY = "tmp"
LONGEST_PATH = 70
"""Bytes. The path of a socket has at most 107, and vLLM adds 37."""


def set_home(data_dir: Path) -> None:
    """Let libraries use `data_dir` for what this user lacks. Variables that are set are kept.

    A Hub cache in a home directory that cannot be written to is still read."""
    _set_user()
    _set_temporary(data_dir)
    try:
        home = Path.home()
    except RuntimeError:
        home = None
    if home is not None and os.access(home, os.W_OK):
        return
    if home is not None and (home / ".cache" / "huggingface").is_dir():
        os.environ.setdefault("HF_HOME", str(home / ".cache" / "huggingface"))
    os.environ["HOME"] = str(data_dir.resolve())


def check_shared_memory(place: Path = SHARED) -> None:
    """Raise LoraComposeError if vLLM's processes could not share memory."""
    try:
        with tempfile.TemporaryFile(dir=place, buffering=0) as file:
            os.posix_fallocate(file.fileno(), 0, SHARED_BYTES)
    except OSError as error:
        raise LoraComposeError(
            CommandCode.ENGINE_NOT_STARTED,
            f"The engine's processes need shared memory, and {place} cannot be used: {error.strerror}. Free "
            "space there, or start the container with --shm-size=1g.",
        ) from error


def _set_user() -> None:
    """torch asks for the name of the user, and fails without one."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ.setdefault("USER", NAME)


def _set_temporary(data_dir: Path) -> None:
    """vLLM's processes meet at sockets in the directory for temporary files."""
    usual = [os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")]
    if any(place and os.access(place, os.W_OK) for place in [*usual, "/tmp", "/var/tmp", "/usr/tmp"]):
        return
    place = data_dir.resolve() / TEMPORARY
    if len(os.fsencode(place)) > LONGEST_PATH:
        place = SHARED
    place.mkdir(exist_ok=True)
    os.environ["TMPDIR"] = str(place)
    tempfile.tempdir = None  # Python looks for it again
