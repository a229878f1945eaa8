"""The first engine that dies while pins and fusion are restored does not end the server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lora_compose.server.engine.errors import EngineDied
from lora_compose.server.metrics import Metrics
from lora_compose.server.state import AppState
from lora_compose.server.supervision import supervisor as module
from lora_compose.server.supervision.app_switch import AppSwitch
from lora_compose.server.supervision.background import running
from lora_compose.server.supervision.supervisor import Supervisor


class Pipeline:
    """A pipeline whose engine dies of every fuse."""

    def __init__(self) -> None:
        self.fused: list[object] = []

    def resolve(self, composition: object) -> object:
        return composition

    async def fuse(self, composition: object) -> None:
        self.fused.append(composition)
        raise EngineDied


class Healthy:
    async def is_healthy(self) -> bool:
        return True


async def test_the_next_engine_starts_without_what_the_first_one_died_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.0)
    pipeline = Pipeline()
    kept = SimpleNamespace(pins=list, fused=lambda: "roll@1")
    state = {
        "registry": SimpleNamespace(kept=kept),
        "pipeline": pipeline,
        "engine": Healthy(),
        "residency": SimpleNamespace(pinned_ids=set),
        "fusion": SimpleNamespace(fused=None),
    }

    @asynccontextmanager
    async def start() -> AsyncIterator[AppState]:
        yield cast(AppState, state)

    supervisor = Supervisor(start, cast(Any, lambda _: None), AppSwitch(), Metrics())
    supervisor._pause = 0.0
    async with running(supervisor.run()):
        await asyncio.wait_for(supervisor.up.wait(), 10)
    assert len(pipeline.fused) == 1
