"""The watchdog kills an engine that is stuck, and not one that is busy."""

import asyncio

import pytest

from lora_compose.server.engine.frontend import watchdog
from lora_compose.server.engine.frontend.watchdog import EngineWatchdog


class Engine:
    """A stand-in for the engine: `answers` pings or not, `works` (uses CPU time) or not."""

    def __init__(self, *, answers: bool, works: bool) -> None:
        self._answers, self._works = answers, works
        self._cpu = 0.0
        self.killed = False

    async def ping(self) -> None:
        if not self._answers:
            await asyncio.sleep(3600)

    def cpu_seconds(self) -> float:
        self._cpu += self._works
        return self._cpu

    def kill(self) -> None:
        self.killed = True


@pytest.mark.parametrize(
    ("answers", "works", "killed"), [(True, False, False), (False, True, False), (False, False, True)]
)
async def test_only_what_neither_answers_nor_works_is_ended(
    monkeypatch: pytest.MonkeyPatch, answers: bool, works: bool, killed: bool
) -> None:
    monkeypatch.setattr(watchdog, "POLL_SECONDS", 0.01)
    engine = Engine(answers=answers, works=works)
    watched = EngineWatchdog(engine, hang_seconds=0.1)
    task = asyncio.create_task(watched.watch())
    done, _ = await asyncio.wait([task], timeout=0.5)
    assert (bool(done), engine.killed) == (killed, killed)
    task.cancel()
