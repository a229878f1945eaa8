"""The HTTP server of a process: what signals do, and how it drains."""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from socket import socket
from types import FrameType

import uvicorn
from typing_extensions import override

from lora_compose.server.process_end import end_now
from lora_compose.server.supervision.app_switch import AppSwitch

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 30


class UvicornServer(uvicorn.Server):
    """A uvicorn server that ends with exit code 0 after SIGTERM or SIGINT."""

    def __init__(self, app_switch: AppSwitch, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._app_switch = app_switch

    @override
    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """End a benchmark first, because the drain would wait for the requests that it keeps sending."""
        waiting = len(self.server_state.tasks)
        if waiting:
            logger.info(
                "stopping: %d requests get up to %d s. A second signal ends them", waiting, DRAIN_SECONDS
            )
        if self._app_switch.state is not None:
            await self._app_switch.state["benchmarks"].close()
        await super().shutdown(sockets)

    def handle_signals(self) -> None:
        """The first signal drains, the second ends the connections, also before `serve` is called.

        An exception in a signal handler would be lost in the event loop."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.handle_exit)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """After HTTP has ended, a signal ends the process at once. uvicorn's own version raises it again."""
        yield
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end_now)

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True
