"""Ends an engine that neither answers nor uses the CPU.

During a long step the engine does not answer for seconds. That is not a fault: its processes use the CPU. An
engine that does neither is stuck: it is stopped, swapped out, or waits for an event that never happens.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Protocol

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.25
SUSPECT_SECONDS = 1.0
"""After this time without an answer and without CPU use, the server is not ready."""
MIN_CPU_SHARE = 0.02
"""Share of the polling interval. An engine that used less CPU than this was idle."""


class Watched(Protocol):
    """What the watchdog needs of the engine."""

    async def ping(self) -> None: ...

    def cpu_seconds(self) -> float: ...

    def kill(self) -> None: ...


class EngineWatchdog:
    """Watches one engine. Run `watch` as a task while that engine runs."""

    def __init__(self, engine: Watched, hang_seconds: float) -> None:
        self._engine = engine
        self._hang_seconds = hang_seconds
        self.silent_for = 0.0
        """Seconds without an answer and without CPU use."""

    @property
    def is_stuck(self) -> bool:
        """True if the engine should get no traffic."""
        return self.silent_for > SUSPECT_SECONDS

    async def watch(self) -> None:
        """Return after the engine was silent for `hang_seconds` and was killed.

        The supervisor starts a new one."""
        while True:
            ping = asyncio.ensure_future(self._engine.ping())
            try:
                if not await self._answers_in_time([ping]):
                    logger.error(
                        "the engine did not answer and used no CPU for %.0f s: it is being killed",
                        self.silent_for,
                    )
                    self._engine.kill()
                    return
            finally:
                ping.cancel()
                await asyncio.gather(ping, return_exceptions=True)
            self.silent_for = 0.0
            await asyncio.sleep(POLL_SECONDS)

    async def _answers_in_time(self, ping: "Sequence[asyncio.Future[None]]") -> bool:
        """True if the ping was answered, False if the engine was silent for `hang_seconds`."""
        active = checked = time.monotonic()
        cpu = self._engine.cpu_seconds()
        while True:
            done, _ = await asyncio.wait(ping, timeout=POLL_SECONDS)
            if done:
                return True
            now, used = time.monotonic(), self._engine.cpu_seconds()
            if used - cpu > MIN_CPU_SHARE * (now - checked):
                active = now
            checked, cpu = now, used
            self.silent_for = now - active
            if self.silent_for > self._hang_seconds:
                return False
