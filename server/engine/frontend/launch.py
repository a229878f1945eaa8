"""Starts vLLM and its OpenAI app inside this process.

Options that `serve` does not define are parsed by vLLM's own argument parser. Some defaults differ, where a
LoRA server or a CPU needs another value.
"""

import gc
import logging
import os
from argparse import Namespace
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from huggingface_hub import snapshot_download
from typing_extensions import override
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.exceptions import VLLMValidationError
from vllm.platforms import current_platform
from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.utils.import_utils import import_from_path

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.server.cpu_defaults import defaults_for
from lora_compose.server.engine.errors import PluginMissing
from lora_compose.server.engine.frontend.client import calls_end_with_engine, client_made_in_thread
from lora_compose.server.engine.frontend.engine import Engine
from lora_compose.server.engine.frontend.environment import engine_environment
from lora_compose.server.engine.frontend.lora_requests_info import replace_lora_info
from lora_compose.server.engine.frontend.token_accounting import count_tokens
from lora_compose.server.engine.kernel_choice import OPTION, chosen_kernels
from lora_compose.server.memory import MAX_NUM_SEQS, plan_kv_cache

logger = logging.getLogger(__name__)

IN_PROCESS = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
REQUEST_LOGGER = "vllm.entrypoints.serve.utils.request_logger"
MAX_CPU_LORAS = 64
"""The default of `--max-cpu-loras`, or `--max-loras` if that is more."""
WORKER_EXTENSION = "lora_compose.server.engine.worker.extension.CompositionWorkerExtension"


class OneLineParser(FlexibleArgumentParser):
    """vLLM's parser, which refuses with one line in place of all its options."""

    @override
    def error(self, message: str) -> NoReturn:
        raise LoraComposeError(CommandCode.INVALID_OPTION, f"{message[:1].upper()}{message[1:]}.")


def parse_vllm_args(arguments: Sequence[str]) -> Namespace:
    """Parse with vLLM's own parser and our defaults. Raises LoraComposeError if an option is not valid."""
    parser = make_arg_parser(OneLineParser(prog="lora-compose serve"))
    parser.set_defaults(
        enable_lora=True,
        max_loras=8,
        max_lora_rank=64,
        worker_extension_cls=WORKER_EXTENSION,
        disable_fastapi_docs=True,
        shutdown_timeout=5,
        use_tqdm_on_load=False,
    )
    if current_platform.is_cpu():
        parser.set_defaults(enforce_eager=True, dtype=None)
    args = parser.parse_args(list(arguments))
    if current_platform.is_cpu():
        _choose_for_cpu(args)
    _load_parsers(args)
    _check_kernels(args)
    if args.max_cpu_loras is None:
        args.max_cpu_loras = max(MAX_CPU_LORAS, args.max_loras)
    elif args.max_cpu_loras < args.max_loras:
        raise LoraComposeError(
            CommandCode.INVALID_OPTION,
            f"--max-cpu-loras ({args.max_cpu_loras}) must be at least --max-loras ({args.max_loras}).",
        )
    if current_platform.is_cpu() and _is_one_process(args):
        args.distributed_executor_backend = IN_PROCESS
    if current_platform.is_cpu() and not _sizes_kv_cache(args):
        plan = plan_kv_cache(args.model, args.dtype, args.max_model_len, args.max_num_seqs or MAX_NUM_SEQS)
        workers = args.tensor_parallel_size * args.pipeline_parallel_size
        args.kv_cache_memory_bytes = plan.kv_cache // workers
        logger.info("%s", plan.sentence())
    return args


def _check_kernels(args: Namespace) -> None:
    """Raise LoraComposeError if the LoRA kernels that the user chose do not exist here."""
    try:
        chosen = chosen_kernels(args.additional_config)
    except ValueError as error:
        raise LoraComposeError(CommandCode.INVALID_OPTION, f"--additional-config: {error}.") from error
    if chosen == "pooled" and current_platform.is_cpu():
        raise LoraComposeError(
            CommandCode.INVALID_OPTION,
            f"--additional-config: {OPTION} ({chosen!r}) is for GPUs. A CPU has kernels of its own.",
        )


def _load_parsers(args: Namespace) -> None:
    """Import the user's parsers of tool calls and reasoning, and make vLLM's checks, as `vllm serve` does.

    Raises LoraComposeError."""
    _import_plugin("--tool-parser-plugin", args.tool_parser_plugin)
    _import_plugin("--reasoning-parser-plugin", args.reasoning_parser_plugin)
    try:
        validate_parsed_serve_args(args)
    except (TypeError, ValueError, VLLMValidationError) as error:
        message = str(error).removeprefix("Error: ")
        raise LoraComposeError(CommandCode.INVALID_OPTION, message) from error
    _check_name("--tool-call-parser", args.tool_call_parser, ToolParserManager.list_registered())
    _check_name("--reasoning-parser", args.reasoning_parser, ReasoningParserManager.list_registered())


def _import_plugin(flag: str, plugin: str) -> None:
    """Import the user's file or module. vLLM's own function only logs an error and goes on without it."""
    if not plugin:
        return
    try:
        if Path(plugin).suffix == ".py":
            import_from_path(Path(plugin).stem, plugin)
        else:
            import_module(plugin)
    except Exception as error:
        logger.debug("a plugin could not be imported", exc_info=True)
        message = f"{flag} ({plugin}) cannot be imported: {error}"
        raise LoraComposeError(CommandCode.INVALID_OPTION, message) from error


def _check_name(flag: str, name: str | None, known: Sequence[str]) -> None:
    """Raise LoraComposeError for a parser that is not there.

    vLLM checks that of tool calls only with --enable-auto-tool-choice, and the other one late."""
    if not name or name in known:
        return
    near = get_close_matches(name, known, 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise LoraComposeError(
        CommandCode.INVALID_OPTION, f"{flag} ({name}) must be one of {', '.join(known)}.{hint}"
    )


def _choose_for_cpu(args: Namespace) -> None:
    """Set the data type that the user left open, and log it with the number of threads.

    Raises LoraComposeError if OMP_NUM_THREADS is not a number."""
    chosen = defaults_for(args.model, args.dtype)
    args.dtype = chosen.dtype
    logger.info("%s", chosen.sentence())


def _sizes_kv_cache(args: Namespace) -> bool:
    """Whether the user chose the size of the KV cache, in one of vLLM's three ways."""
    chosen = args.kv_cache_memory_bytes is not None or bool(os.environ.get("VLLM_CPU_KVCACHE_SPACE"))
    return chosen or args.gpu_memory_utilization != AsyncEngineArgs.gpu_memory_utilization


def _is_one_process(args: Namespace) -> bool:
    """True if the model can run in the engine's own process.

    By default vLLM on CPUs uses a worker process that polls for work without sleeping. On two cores that
    costs a third to two thirds of the throughput and makes it unsteady (docs/cpu-performance.md).
    """
    workers = args.tensor_parallel_size * args.pipeline_parallel_size
    return args.distributed_executor_backend is None and bool(workers == 1)


def set_environment(args: Namespace) -> None:
    """Set defaults that vLLM and the Hub client read from the environment. Variables that are set win.

    `args` are those of `parse_vllm_args`."""
    for name, value in engine_environment(args.model).items():
        os.environ.setdefault(name, value)


@asynccontextmanager
async def launch(args: Namespace, *, lora_requests_info: bool = False) -> AsyncIterator[Engine]:
    """Start an engine. It runs while the context is open. The event loop answers requests meanwhile.

    `lora_requests_info` publishes vLLM's metric of that name.
    Raises PluginMissing if a worker runs without our plugin, because its answers would be wrong.
    """
    async with client_made_in_thread(args) as client, calls_end_with_engine(client):
        backends = await _check_plugin(client)
        embeddings = await client.collective_rpc("embedding_modules")
        model_dir = _directory_of(args)
        await client.collective_rpc("use_checkpoint", args=(str(model_dir),))
        await client.collective_rpc("give_back_memory")
        replace_lora_info(client, lora_requests_info)
        count_tokens(client)
        tasks = await client.get_supported_tasks()
        if args.enable_log_requests:
            _show_request_lines()
        app = build_app(args, tasks, client.model_config)
        await init_app_state(client, app.state, args, tasks)
        config = client.vllm_config
        names = [path.name for path in app.state.openai_serving_models.base_model_paths]
        # vLLM's app freezes the heap when it starts. The previous engine's client is then frozen. It has
        # reference cycles, so without this line it would never be freed, with its threads and pipes.
        gc.unfreeze()
        async with app.router.lifespan_context(app):
            yield Engine(
                client=client,
                app=app,
                models=app.state.openai_serving_models,
                base=names[0],
                other_names=(*names[1:],),
                model_dir=model_dir,
                max_model_len=config.model_config.max_model_len,
                max_lora_rank=config.lora_config.max_lora_rank,
                max_loras=config.lora_config.max_loras,
                max_cpu_loras=config.lora_config.max_cpu_loras,
                dtype=config.lora_config.lora_dtype,
                runtime_weights=all(backend["runtime_weights"] for backend in backends),
                scales_rows=all(backend["grouped"] for backend in backends),
                special_token_ids=frozenset(client.tokenizer.all_special_ids if client.tokenizer else ()),
                parses_tools=bool(args.enable_auto_tool_choice),
                parses_reasoning=bool(config.structured_outputs_config.reasoning_parser),
                lora_modules=await _lora_modules(client, config.lora_config.target_modules),
                embedding_modules=frozenset[str]().union(*(found["names"] for found in embeddings)),
                tied_embeddings=any(found["tied"] for found in embeddings),
            )


def _show_request_lines() -> None:
    """Let --enable-log-requests have an effect although vLLM's other lines begin at WARNING here."""
    requests, ours = logging.getLogger(REQUEST_LOGGER), logging.getLogger(__name__.partition(".")[0])
    if not requests.isEnabledFor(logging.INFO):
        requests.setLevel(logging.INFO)
        requests.handlers, requests.propagate = ours.handlers, False


async def _check_plugin(client: Any) -> list[dict[str, Any]]:
    """The LoRA managers and kernels of the workers. Raises PluginMissing."""
    backends: list[dict[str, Any]] = await client.collective_rpc("lora_backend")
    for backend in backends:
        grouped = backend["grouped"] or not current_platform.is_cpu()
        if not (backend["composes"] and grouped):
            raise PluginMissing(
                f"A vLLM worker runs without the lora_compose plugin ({backend}). Check that lora-compose is "
                "installed in this environment and that VLLM_PLUGINS, if it is set, contains lora_compose."
            )
    return backends


async def _lora_modules(client: Any, targets: Sequence[str] | None) -> frozenset[str] | None:
    """The modules that --lora-target-modules leaves to adapters; None without the option."""
    if targets is None:
        return None
    return frozenset[str]().union(*await client.collective_rpc("lora_modules"))


def _directory_of(args: Namespace) -> Path:
    """The directory of the model's files: `--model`, or the snapshot in the Hub cache that vLLM has read."""
    if Path(args.model).is_dir():
        return Path(args.model).resolve()
    found = snapshot_download(
        args.model, revision=args.revision, cache_dir=args.download_dir, local_files_only=True
    )
    return Path(found)
