"""A watchdog on the engine: does it still answer, and if not, does it at least work?

A long step keeps it from answering for seconds and is no fault: its processes then use the CPU. One that
neither answers nor works is stuck: stopped, swapped out, or waiting for what never comes.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Protocol

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.25
SUSPECT_SECONDS = 1.0
"""Without a sign of life: send no traffic here."""
MIN_CPU_SHARE = 0.02
"""Of a look's time: less CPU than that is no work."""


class Watched(Protocol):
    """What is asked of the engine."""

    async def beat(self) -> None: ...

    def cpu_seconds(self) -> float: ...

    def kill(self) -> None: ...


class EngineWatchdog:
    """Of one engine. `watch` is a task's work, for as long as that engine runs."""

    def __init__(self, engine: Watched, hang_seconds: float) -> None:
        self._engine = engine
        self._hang_seconds = hang_seconds
        self.silent_for = 0.0
        """Seconds without a sign of life."""

    @property
    def is_stuck(self) -> bool:
        """Whether it should get no traffic."""
        return self.silent_for > SUSPECT_SECONDS

    async def watch(self) -> None:
        """Until it was silent for too long; then it is killed, for whoever supervises to start another."""
        while True:
            beat = asyncio.ensure_future(self._engine.beat())
            try:
                if not await self._wait_for([beat]):
                    logger.error("no sign of life from the engine for %.0f s: ending it", self.silent_for)
                    self._engine.kill()
                    return
            finally:
                beat.cancel()
                await asyncio.gather(beat, return_exceptions=True)
            self.silent_for = 0.0
            await asyncio.sleep(POLL_SECONDS)

    async def _wait_for(self, beat: "Sequence[asyncio.Future[None]]") -> bool:
        """Whether it came, before the engine was silent for too long."""
        seen = looked = time.monotonic()
        cpu = self._engine.cpu_seconds()
        while True:
            done, _ = await asyncio.wait(beat, timeout=POLL_SECONDS)
            if done:
                return True
            now, used = time.monotonic(), self._engine.cpu_seconds()
            if used - cpu > MIN_CPU_SHARE * (now - looked):
                seen = now
            looked, cpu = now, used
            self.silent_for = now - seen
            if self.silent_for > self._hang_seconds:
                return False
