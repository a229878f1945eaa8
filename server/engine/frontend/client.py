"""vLLM's client of its engine: making one without blocking the event loop, and the engine's processes."""

import asyncio
from argparse import Namespace
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from multiprocessing.process import BaseProcess
from typing import Any

import psutil
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.cli_args import propagate_flash_late_interaction
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine import utils
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.server.engine.errors import EngineDied, EngineNotStarted
from lora_compose.server.engine.frontend.early_process import engine_context, is_running
from lora_compose.server.engine.frontend.loading import in_loading_thread
from lora_compose.server.engine.start_failure import StartFailures, cause_of_end, start_failures

POLL_SECONDS = 0.1


@asynccontextmanager
async def client_made_in_thread(args: Namespace) -> AsyncIterator[AsyncLLM]:
    """vLLM's engine client, made in a thread, because making it blocks until the model is loaded.

    vLLM's own `build_async_engine_client` makes it on the event loop. A client that was made without an event
    loop starts its tasks when it is first used. If this is cancelled meanwhile, the engine is killed.
    Raises EngineNotStarted if an engine process ended."""

    def make() -> AsyncLLM:
        fork_engines()
        engine_args = AsyncEngineArgs.from_cli_args(args)
        propagate_flash_late_interaction(args, engine_args)
        config = engine_args.create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER)
        return AsyncLLM.from_vllm_config(
            config,
            usage_context=UsageContext.OPENAI_API_SERVER,
            disable_log_stats=engine_args.disable_log_stats,
            enable_log_requests=engine_args.enable_log_requests,
        )

    with start_failures() as failures:
        client = await _made(make, failures)
    try:
        yield client
    finally:
        client.shutdown(timeout=client.vllm_config.shutdown_timeout)


def fork_engines() -> None:
    """Let vLLM fork its engine from the early process, if `import_early` was called."""
    if is_running():
        utils.get_mp_context = engine_context


async def _made(make: Callable[[], AsyncLLM], failures: StartFailures) -> AsyncLLM:
    processes: list[BaseProcess] = []
    try:
        return await in_loading_thread(make, processes)
    except LoraComposeError:
        raise
    except Exception as error:
        cause = await cause_of_end(failures, processes)
        if cause is None:
            raise
        raise EngineNotStarted(cause) from error


@asynccontextmanager
async def calls_end_with_engine(client: Any) -> AsyncIterator[None]:
    """Make calls in flight raise EngineDeadError when the engine dies. With vLLM alone they never return."""
    watcher = asyncio.create_task(_watch(client))
    try:
        yield
    finally:
        watcher.cancel()
        _end_calls(client.engine_core.utility_results)


async def _watch(client: Any) -> None:
    while True:
        if client.errored:
            _end_calls(client.engine_core.utility_results)
        await asyncio.sleep(POLL_SECONDS)


def _end_calls(waiting: dict[int, asyncio.Future[Any]]) -> None:
    while waiting:
        _, future = waiting.popitem()
        if not future.done():
            future.set_exception(EngineDeadError())
            future.exception()  # asyncio warns about exceptions that are never read


@contextmanager
def engine_died() -> Iterator[None]:
    """Raise EngineDied in place of vLLM's EngineDeadError."""
    try:
        yield
    except EngineDeadError as error:
        raise EngineDied(str(error)) from error


def engine_processes(client: Any) -> list[psutil.Process]:
    """The processes of the engine and its workers that still exist."""
    found = []
    for own in client.engine_core.resources.engine_manager.processes:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(own.pid)
            found += [process, *process.children(recursive=True)]
    return found


def cpu_seconds(process: psutil.Process) -> float:
    """CPU time that the process has used; 0 if it has ended."""
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)
