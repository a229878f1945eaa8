"""Starts `lora-compose serve` as people do, for tests that need a real server on the real, tiny base."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

START_SECONDS = 180
STOP_SECONDS = 60
COMMAND = str(Path(sys.executable).with_name("lora-compose"))


@dataclass
class RunningServer:
    """A server process on a loopback port. `log` holds everything it and vLLM wrote."""

    process: "subprocess.Popen[bytes]"
    url: str
    log: Path

    @classmethod
    def start(cls, data_dir: Path, log: Path, options: Sequence[str] = ()) -> "RunningServer":
        """Returns at once; `wait_until_ready` waits."""
        port = free_port()
        environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
        with log.open("ab") as output:
            process = subprocess.Popen(
                [COMMAND, "serve", "--port", str(port), "--data-dir", str(data_dir), *options],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        return cls(process, f"http://127.0.0.1:{port}", log)

    def wait_until_ready(self) -> None:
        """Raises RuntimeError with the end of the log where it does not get ready."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.25)
        raise RuntimeError(f"the server did not get ready:\n{self.log.read_text()[-4000:]}")

    def engine(self) -> psutil.Process:
        """The child that holds the model. Raises ValueError, or psutil.NoSuchProcess, where there is none."""
        children = psutil.Process(self.process.pid).children()
        return max(children, key=lambda child: child.memory_info().rss)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def free_port() -> int:
    """A loopback port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
