"""Fuses a composition for the arms that need it, and times both switches of the base weights."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Literal

from lora_compose.benchmarks.serving.results.document import Switch
from lora_compose.server.client.http import Client


@asynccontextmanager
async def fused(url: str, api_key: str | None, model: str, switches: list[Switch]) -> AsyncIterator[None]:
    """Fuse `model`, and restore the base when the context closes. Both switches are added to `switches`."""
    await _timed("fuse", url, api_key, model, switches)
    try:
        yield
    finally:
        await _timed("restore", url, api_key, None, switches)


async def _timed(
    what: Literal["fuse", "restore"],
    url: str,
    api_key: str | None,
    model: str | None,
    switches: list[Switch],
) -> None:
    began = perf_counter()
    await asyncio.to_thread(_switch, url, api_key, model)
    switches.append(Switch(what=what, model=model, seconds=perf_counter() - began))


def _switch(url: str, api_key: str | None, model: str | None) -> None:
    with Client(url, api_key) as client:
        if model is None:
            client.restore_base()
        else:
            client.fuse(model)
