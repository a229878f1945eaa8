"""A real server that tests may do to as they like: kill its engine, fill its memory, restart it."""

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
    """Its data directory stays when it is restarted. A test takes it as the one before left it."""

    home: Path
    running: RunningServer

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
        """SIGTERM, and a new process on the same data; the exit code of the one before."""
        code = self.running.stop()
        self.running = self._running(self.home)
        self.running.wait_until_ready()
        return code

    @property
    def url(self) -> str:
        return self.running.url

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60)

    def register(self, names: tuple[str, ...]) -> None:
        """Shipped adapters, under their own names."""
        with self.client() as http:
            for name in names:
                body = {"name": name, "path": str(ADAPTERS_DIR / name)}
                http.post("/v1/adapters", json=body).raise_for_status()


def until(holds: Callable[[], bool]) -> None:
    """Returns when `holds` does; fails after PATIENCE seconds."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)
