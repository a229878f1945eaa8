"""Starts `lora-compose serve` as people do, for tests that need a real server on the real, tiny base."""

import signal
from collections.abc import Sequence
from pathlib import Path

import psutil
from typing_extensions import override

from lora_compose.server.client.process import ServerProcess

START_SECONDS = 180


class RunningServer(ServerProcess):
    """A server of the tests, in their own session: what ends a test run from outside ends it too."""

    @classmethod
    def start(cls, data_dir: Path, log: Path, options: Sequence[str] = ()) -> "RunningServer":
        """Returns at once; `wait_until_ready` waits."""
        return cls.serve(["--data-dir", str(data_dir), *options], log, own_session=False)

    @override
    def wait_until_ready(self, seconds: float = START_SECONDS) -> None:
        super().wait_until_ready(seconds)

    def engine(self) -> psutil.Process:
        """The process that holds the model. Without one: ValueError or psutil.NoSuchProcess."""
        top = psutil.Process(self.process.pid)
        forked = [below for child in top.children() for below in child.children()]
        return max(forked or top.children(), key=lambda process: process.memory_info().rss)

    @override
    def stop(self) -> int:
        """SIGTERM, and the exit code. A server that has to be killed fails the test."""
        was_running = self.process.poll() is None
        code = super().stop()
        assert not (was_running and code == -signal.SIGKILL), "the server did not stop in time"
        return code
