"""Fusing and restoring while arms are measured, and what a switch takes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Literal

from benchmarks.latency.document import Switch
from server.client.http import Client


@asynccontextmanager
async def fused(url: str, api_key: str | None, model: str, told: list[Switch]) -> AsyncIterator[None]:
    """`model` is folded into the base inside; the base is restored however it is left."""
    await _timed("fuse", url, api_key, model, told)
    try:
        yield
    finally:
        await _timed("restore", url, api_key, None, told)


async def _timed(
    what: Literal["fuse", "restore"], url: str, api_key: str | None, model: str | None, told: list[Switch]
) -> None:
    began = perf_counter()
    await asyncio.to_thread(_switch, url, api_key, model)
    told.append(Switch(what=what, model=model, seconds=perf_counter() - began))


def _switch(url: str, api_key: str | None, model: str | None) -> None:
    with Client(url, api_key) as client:
        if model is None:
            client.restore_base()
        else:
            client.fuse(model)
