"""Keeps an engine running: where one dies another takes its place, with what people had asked of it.

HTTP stays up meanwhile and says 503, so nobody waits for a connection that will not be answered.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from starlette.types import ASGIApp

from lora_compose.server.metrics import Metrics
from lora_compose.server.state import AppState
from lora_compose.server.supervision.app_switch import AppSwitch
from lora_compose.server.supervision.engine_state import EngineState

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
STEADY_SECONDS = 60.0
"""An engine that ran so long did not die of how it was started: the next one need not wait."""

Start = Callable[[], AbstractAsyncContextManager[AppState]]
Build = Callable[[AppState], ASGIApp]


class Supervisor:
    """`start` brings up an engine and the state around it; `build` makes the app in front of them."""

    def __init__(
        self, start: Start, build: Callable[[AppState], ASGIApp], front: AppSwitch, metrics: Metrics
    ) -> None:
        self._start = start
        self._build = build
        self._front = front
        self._metrics = metrics
        self._kept = EngineState()
        self._pause = FIRST_PAUSE
        self.up = asyncio.Event()
        """Set when the first engine answers."""

    async def run(self) -> None:
        """Until cancelled. Raises what kept the very first engine from starting."""
        while True:
            began = time.monotonic()
            try:
                async with self._start() as state:
                    await self._serve(state)
            except Exception:
                if not self.up.is_set():
                    raise
                logger.exception("the engine could not be started, or not ended cleanly")
            await self._wait(time.monotonic() - began)
            self._metrics.engine_restarts.inc()

    async def _serve(self, state: AppState) -> None:
        """Until its engine is dead."""
        await self._kept.put_back(state)
        self._front.open(self._build(state), state)
        self._metrics.engine_up.set(1)
        self.up.set()
        try:
            while await state["engine"].is_healthy():
                await asyncio.sleep(POLL_SECONDS)
            logger.error("the engine died: starting another")
        finally:
            self._front.close()
            self._metrics.engine_up.set(0)
            self._kept = EngineState.of(state)

    async def _wait(self, lived: float) -> None:
        pause = FIRST_PAUSE if lived > STEADY_SECONDS else self._pause
        self._pause = min(2 * pause, LONGEST_PAUSE)
        await asyncio.sleep(pause)
