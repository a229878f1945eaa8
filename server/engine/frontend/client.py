"""vLLM's client of its engine: made without standing still, and the processes behind it."""

import asyncio
from argparse import Namespace
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import psutil
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from lora_compose.server.engine.errors import EngineDied

LOOK_SECONDS = 0.1


@asynccontextmanager
async def client_beside_others(args: Namespace) -> AsyncIterator[AsyncLLM]:
    """As `build_async_engine_client`, whose constructor blocks until the model is loaded, in a thread.

    vLLM's clients begin their tasks at their first use if there was no event loop when they were made."""
    engine_args = AsyncEngineArgs.from_cli_args(args)
    config = engine_args.create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER)
    making = asyncio.ensure_future(
        asyncio.to_thread(
            AsyncLLM.from_vllm_config,
            config,
            usage_context=UsageContext.OPENAI_API_SERVER,
            disable_log_stats=engine_args.disable_log_stats,
            enable_log_requests=engine_args.enable_log_requests,
        )
    )
    try:
        client = await asyncio.shield(making)
        yield client
    finally:
        # However this is left, the process it started must not outlive it.
        if not making.done():
            await asyncio.wait([making])
        if not making.exception():
            making.result().shutdown(timeout=config.shutdown_timeout)


@asynccontextmanager
async def calls_end_with_engine(client: Any) -> AsyncIterator[None]:
    """Calls in flight raise EngineDeadError when the engine dies; vLLM would let them wait for ever."""
    watching = asyncio.create_task(_watch(client))
    try:
        yield
    finally:
        watching.cancel()
        _end_calls(client.engine_core.utility_results)


async def _watch(client: Any) -> None:
    while True:
        if client.errored:
            _end_calls(client.engine_core.utility_results)
        await asyncio.sleep(LOOK_SECONDS)


def _end_calls(waiting: dict[int, asyncio.Future[Any]]) -> None:
    while waiting:
        _, future = waiting.popitem()
        if not future.done():
            future.set_exception(EngineDeadError())
            future.exception()  # asyncio complains of those that nobody looks at


@contextmanager
def engine_died() -> Iterator[None]:
    """vLLM's EngineDeadError leaves this context as EngineDied."""
    try:
        yield
    except EngineDeadError as error:
        raise EngineDied(str(error)) from error


def engine_processes(client: Any) -> list[psutil.Process]:
    """The engine's, and its workers'; those that are there."""
    found = []
    for own in client.engine_core.resources.engine_manager.processes:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(own.pid)
            found += [process, *process.children(recursive=True)]
    return found


def cpu_seconds(process: psutil.Process) -> float:
    """Used so far; 0 where it has gone."""
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)
