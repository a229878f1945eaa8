"""Starts a server as a child process, waits until it is ready, and ends it together with its children.

`ServerProcess.serve` starts `lora-compose serve`. `ServerProcess.run` starts any other server.
"""

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import psutil

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.server.client.tied import tied

COMMAND = str(Path(sys.executable).with_name("lora-compose"))
DEFAULT_ENVIRONMENT = {"VLLM_LOGGING_LEVEL": "WARNING"}
"""vLLM logs little. A variable that is set already wins."""
READY_PATH = "/readyz"
START_SECONDS = 300.0
STOP_SECONDS = 60.0
LOG_LINES = 40

logger = logging.getLogger(__name__)


def serve_command(port: int, options: Sequence[str]) -> list[str]:
    """The command line of `lora-compose serve`."""
    return [COMMAND, "serve", "--port", str(port), *options]


@dataclass(frozen=True)
class ServerProcess:
    """A server that this process started. `log` holds everything that it wrote.

    As a context manager it stops the server at the end."""

    process: "subprocess.Popen[bytes]"
    url: str
    log: Path
    ready_path: str = READY_PATH

    @classmethod
    def serve(
        cls, options: Sequence[str], log: Path, port: int | None = None, own_session: bool = True
    ) -> Self:
        """Start `lora-compose serve`, by default on a free port. Returns before the server is ready."""
        port = port or free_port()
        return cls.run(serve_command(port, options), port, log, own_session=own_session)

    @classmethod
    def run(
        cls,
        command: Sequence[str],
        port: int,
        log: Path,
        environment: Mapping[str, str] | None = None,
        ready_path: str = READY_PATH,
        own_session: bool = True,
    ) -> Self:
        """Start a command that listens on the loopback `port`; `log` is appended to.

        With `own_session` the server does not get Ctrl-C of this terminal: the caller must stop it. It also
        gets SIGTERM when this process ends."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = subprocess.Popen(
                tied(command),
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**DEFAULT_ENVIRONMENT, **os.environ, **(environment or {})},
                start_new_session=own_session,
            )
        return cls(process, f"http://127.0.0.1:{port}", log, ready_path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait_until_ready(self, seconds: float = START_SECONDS) -> None:
        """Return when the server takes requests. Another program that answers at `url` does not count.

        Raises LoraComposeError `server_not_ready` with the end of its log if it ends or takes too long."""
        deadline = time.monotonic() + seconds
        while not self._is_ready():
            if self.process.poll() is not None:
                raise self._not_ready(f"ended with code {self.process.returncode}")
            if time.monotonic() > deadline:
                raise self._not_ready(f"was not ready after {seconds:.0f} s")
            time.sleep(0.25)

    def stop(self) -> int:
        """End the server with SIGTERM and return its exit code.

        If it has not ended after STOP_SECONDS, it and its children are killed."""
        self.process.terminate()
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            logger.warning(
                "the server at %s did not stop within %.0f s and is being killed", self.url, STOP_SECONDS
            )
            self._kill()
            return self.process.wait()

    def _is_ready(self) -> bool:
        if not self._listens():
            return False
        try:
            return httpx.get(f"{self.url}{self.ready_path}", timeout=5).is_success
        except httpx.TransportError:
            return False

    def _listens(self) -> bool:
        """Whether this server, and no other program, listens on the port of `url`."""
        port = httpx.URL(self.url).port
        with suppress(psutil.NoSuchProcess):
            top = psutil.Process(self.process.pid)
            found = [
                one
                for process in (top, *top.children(recursive=True))
                for one in process.net_connections()
                if one.status == psutil.CONN_LISTEN and one.laddr.port == port
            ]
            return bool(found)
        return False

    def _not_ready(self, problem: str) -> LoraComposeError:
        end = "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_LINES:])
        return LoraComposeError(
            CommandCode.SERVER_NOT_READY, f"The server at {self.url} {problem}. Its log ends:\n{end}"
        )

    def _kill(self) -> None:
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()


def free_port() -> int:
    """A loopback port that no process listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
