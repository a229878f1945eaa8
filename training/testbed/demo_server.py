"""Start `lora-compose serve` on the testbed, as a person would, wait for it, and end it."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from server.client.http import Client

START_SECONDS = 300
STOP_SECONDS = 60
LOG_LINES = 40
COMMAND = Path(sys.executable).with_name("lora-compose")
QUIET_AND_SMALL = {"VLLM_LOGGING_LEVEL": "WARNING", "VLLM_CPU_KVCACHE_SPACE": "1"}


class ServerDied(Exception):
    """It ended, or did not get ready in time. The text is the end of its log."""


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(port: int, log: Path, options: Sequence[str]) -> Iterator["subprocess.Popen[bytes]"]:
    """A server process that writes to `log`, ended when the context is left.

    It gets a session of its own: Ctrl-C is ours, and we end it in order."""
    command = [str(COMMAND), "serve", "--port", str(port), *options]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=QUIET_AND_SMALL | dict(os.environ),
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        finally:
            process.kill()


def wait_until_ready(process: "subprocess.Popen[bytes]", client: Client, log: Path) -> None:
    """Return when the server takes requests. Raises ServerDied."""
    deadline = time.monotonic() + START_SECONDS
    while not client.is_ready():
        if process.poll() is not None:
            raise ServerDied(f"The server ended with code {process.returncode}.\n{_end_of(log)}")
        if time.monotonic() > deadline:
            raise ServerDied(f"The server was not ready after {START_SECONDS} s.\n{_end_of(log)}")
        time.sleep(0.25)


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])
