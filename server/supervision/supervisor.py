"""Restarts a dead engine, and restores pins and the fused composition at each start of an engine.

HTTP stays up during a restart and answers 503, so that no client waits for a connection.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp

from lora_compose.server.metrics import Metrics
from lora_compose.server.state import AppState
from lora_compose.server.supervision.app_switch import AppSwitch
from lora_compose.server.supervision.engine_state import EngineState

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
STEADY_SECONDS = 60.0
"""If an engine ran for this long, the pause before the next start is `FIRST_PAUSE` again."""

Start = Callable[[], AbstractAsyncContextManager[AppState]]
Build = Callable[[AppState], ASGIApp]


class Supervisor:
    """`start` starts an engine and makes the state around it. `build` makes the app that uses them."""

    def __init__(self, start: Start, build: Build, app_switch: AppSwitch, metrics: Metrics) -> None:
        self._start = start
        self._build = build
        self._app_switch = app_switch
        self._metrics = metrics
        self._engine_state: EngineState | None = None
        """The state of the last engine. None before the first one, which gets what the registry recorded."""
        self._is_retry_due = False
        """Whether the first engine died while it was restored. The server then starts one more."""
        self._pause = FIRST_PAUSE
        self.up = asyncio.Event()
        """Set when the first engine serves requests."""

    async def run(self) -> None:
        """Run until cancelled. Raises the exception that kept the first engine from starting."""
        while True:
            started = time.monotonic()
            try:
                async with self._start() as state:
                    await self._serve(state)
            except Exception:
                if not self.up.is_set() and not self._is_retry_due:
                    raise
                self._is_retry_due = False
                logger.exception("the engine could not be started, or did not end cleanly")
            await self._wait(time.monotonic() - started)
            self._metrics.engine_restarts.inc()

    async def _serve(self, state: AppState) -> None:
        """Serve until the engine is dead."""
        await self._restore(state)
        self._app_switch.open(self._build(state), state)
        self._metrics.engine_up.set(1)
        self.up.set()
        try:
            while await state["engine"].is_healthy():
                await asyncio.sleep(POLL_SECONDS)
            logger.error("the engine died: a new one is being started")
        finally:
            self._app_switch.close()
            self._metrics.engine_up.set(0)
            self._engine_state = EngineState.capture(state)

    async def _restore(self, state: AppState) -> None:
        """Restore pins and fusion. If the first engine dies of it, the next one starts without them."""
        is_first = self._engine_state is None
        engine_state = self._engine_state
        if engine_state is None:
            engine_state = await run_in_threadpool(EngineState.kept, state["registry"])
            self._engine_state = EngineState()
        self._is_retry_due = is_first
        await engine_state.restore(state)
        self._is_retry_due = False

    async def _wait(self, lifetime: float) -> None:
        pause = FIRST_PAUSE if lifetime > STEADY_SECONDS else self._pause
        self._pause = min(2 * pause, LONGEST_PAUSE)
        await asyncio.sleep(pause)
