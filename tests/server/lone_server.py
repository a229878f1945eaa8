"""A real server whose engine tests may kill, whose memory they may fill, and which they may restart."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.running_server import RunningServer

PATIENCE = 90.0
IN_MEMORY, SLOTS = 32, 8


@dataclass
class LoneServer:
    """The data directory stays when the server is restarted, and from one test to the next."""

    home: Path
    running: RunningServer
    while_loading: httpx.Response | None = None
    """What `/readyz` answered as soon as the last restart answered `/livez`."""

    @classmethod
    def start(cls, home: Path) -> "LoneServer":
        (home / "adapters").mkdir()
        lone = cls(home, cls._running(home))
        lone.running.wait_until_ready()
        return lone

    @staticmethod
    def _running(home: Path) -> RunningServer:
        roots = ["--adapter-root", str(ADAPTERS_DIR), "--adapter-root", str(home / "adapters")]
        sizes = ["--max-loras", str(SLOTS), "--max-cpu-loras", str(IN_MEMORY)]
        return RunningServer.start(home / "data", home / "log", [*roots, *sizes, "--hang-seconds", "8"])

    def restart(self) -> int:
        """Send SIGTERM and start a new process on the same data. Returns the exit code of the old one."""
        code = self.running.stop()
        self.running = self._running(self.home)
        until(self._answers)
        self.while_loading = httpx.get(f"{self.url}/readyz", timeout=30)
        self.running.wait_until_ready()
        return code

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/livez", timeout=30).status_code == 200
        except httpx.TransportError:
            return False

    @property
    def url(self) -> str:
        return self.running.url

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60)

    def register(self, names: tuple[str, ...]) -> None:
        """Register shipped adapters under their own names."""
        with self.client() as http:
            for name in names:
                body = {"name": name, "path": str(ADAPTERS_DIR / name)}
                http.post("/v1/adapters", json=body).raise_for_status()


def until(holds: Callable[[], bool]) -> None:
    """Wait until `holds` is true. Fails after PATIENCE seconds."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)
