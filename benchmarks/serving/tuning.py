"""Tries settings: starts a server for each in turn, and sends short closed loops of requests."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.benchmarks.client import open_client
from lora_compose.benchmarks.servers import our_command, running
from lora_compose.benchmarks.serving.load import Sending, body, prompt_pool, send_pass, words_of
from lora_compose.benchmarks.serving.results.plan import Plan
from lora_compose.benchmarks.serving.tuning_settings import Setting, Tried
from lora_compose.server.client.http import Client
from lora_compose.server.client.process import ServerProcess, free_port

ROUNDS: Final = 2
"""Requests of a load: this many for each in flight."""
TOKENS: Final = Plan(prompt_tokens=64, output_tokens=32)
LOADS: Final = ((1, False), (8, False), (8, True))
"""Requests in flight, and whether they use the adapter."""

Start = Callable[[Setting], AbstractContextManager[ServerProcess]]


@dataclass(frozen=True)
class Model:
    """What is served: a base, and an adapter of `root` unless it is None."""

    base: str
    root: Path
    adapter: str | None = None


def started(model: Model, home: Path, options: Sequence[str]) -> Start:
    """How a server is started with a setting. All have other directories below `home`."""

    @contextmanager
    def start(setting: Setting) -> Iterator[ServerProcess]:
        port, place = free_port(), home / f"{setting.threads}-{setting.dtype}"
        command = our_command(port, model.base, place, model.root, [*options, *setting.flags])
        with running(command, model.base, port, place / "server.log", setting.environment) as server:
            server.wait_until_ready()
            yield server

    return start


def try_all(
    settings: Sequence[Setting], model: Model, start: Start, on_step: Callable[[int, int, str], None]
) -> list[Tried]:
    """Each setting's speeds. A setting whose server does not start is a row with the reason."""
    rows = []
    for number, setting in enumerate(settings):
        on_step(number, len(settings), f"{setting.threads} threads, {setting.dtype}")
        try:
            with start(setting) as server:
                rows.append(measured(setting, model, server))
        except LoraComposeError as error:
            rows.append(Tried(setting, {}, failure=error.message.splitlines()[0]))
    return rows


def measured(setting: Setting, model: Model, server: ServerProcess) -> Tried:
    """The speeds of a server. Raises LoraComposeError("no_reference") if it does not answer a request."""
    with Client(server.url) as client:
        if model.adapter is not None:
            client.register({"name": model.adapter, "path": str(model.root / model.adapter)})
        base = client.models()[0]["id"]
        pool = prompt_pool(TOKENS, words_of(client, base))
    speeds = {}
    for in_flight, with_adapter in LOADS:
        if with_adapter and model.adapter is None:
            continue
        name = model.adapter if with_adapter else base
        asyncio.run(_speed(server.url, str(name), pool, in_flight, 1))  # warm up
        what = f"{in_flight} in flight{', one adapter' if with_adapter else ''}"
        speeds[what] = asyncio.run(_speed(server.url, str(name), pool, in_flight, ROUNDS))
    return Tried(setting, speeds, memory_of(server))


def memory_of(server: ServerProcess) -> int:
    """Bytes of the server's processes; pages that several of them have are counted once."""
    top = psutil.Process(server.process.pid)
    return sum(one.memory_full_info().pss for one in (top, *top.children(recursive=True)))


async def _speed(url: str, model: str, pool: Sequence[Sequence[int]], in_flight: int, rounds: int) -> float:
    """Tokens a second of `in_flight * rounds` requests."""
    sendings = [
        Sending(body(model, pool[number % len(pool)], TOKENS.output_tokens, f"{in_flight}-{rounds}-{number}"))
        for number in range(in_flight * rounds)
    ]
    async with open_client(url, in_flight) as client:
        rows, seconds = await send_pass(client, sendings, in_flight)
    failed = next((row.failure for row in rows if row.failure is not None), None)
    if failed is not None:
        message = f"The server did not answer a request for {model}: {failed}."
        raise LoraComposeError(CommandCode.NO_REFERENCE, message)
    return sum(row.tokens for row in rows) / seconds
