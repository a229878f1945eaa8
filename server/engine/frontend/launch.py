"""Start vLLM and its OpenAI app inside our process.

vLLM's options stay vLLM's: what `serve` does not know itself is handed to vLLM's own argument parser. Only
defaults differ, and only where a LoRA server or a CPU wants another one.
"""

import gc
import logging
import os
from argparse import Namespace
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.launchers.api_server.entry import build_async_engine_client
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.platforms import current_platform
from vllm.utils.argparse_utils import FlexibleArgumentParser

from lora_compose.server.engine.errors import PluginMissing
from lora_compose.server.engine.frontend.client import calls_end_with_engine, client_beside_others
from lora_compose.server.engine.frontend.engine import Engine
from lora_compose.server.engine.frontend.lora_requests_info import bound_lora_info
from lora_compose.server.engine.frontend.token_accounting import count_tokens
from lora_compose.server.memory import plan_kv_cache

logger = logging.getLogger(__name__)

IN_PROCESS = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
MAX_NUM_SEQS = 256
"""vLLM's default on a CPU."""
WORKER_EXTENSION = "lora_compose.server.engine.worker.extension.CompositionWorkerExtension"


def parse_vllm_args(arguments: Sequence[str]) -> Namespace:
    """vLLM's own parser with our defaults. Exits with vLLM's message for an unknown or ill-typed option."""
    parser = make_arg_parser(FlexibleArgumentParser(prog="lora-compose serve"))
    parser.set_defaults(
        enable_lora=True,
        max_loras=8,
        max_lora_rank=64,
        max_cpu_loras=64,
        worker_extension_cls=WORKER_EXTENSION,
        disable_fastapi_docs=True,
        shutdown_timeout=5,
    )
    if current_platform.is_cpu():
        # Measured on CPUs without AVX512-BF16: float32 is twice as fast as bfloat16, and exact.
        parser.set_defaults(enforce_eager=True, dtype="float32")
    args = parser.parse_args(list(arguments))
    if current_platform.is_cpu() and _is_one_process(args):
        args.distributed_executor_backend = IN_PROCESS
    if current_platform.is_cpu() and not _sizes_kv_cache(args):
        plan = plan_kv_cache(args.model, args.dtype, args.max_model_len, args.max_num_seqs or MAX_NUM_SEQS)
        workers = args.tensor_parallel_size * args.pipeline_parallel_size
        args.kv_cache_memory_bytes = plan.kv_cache // workers
        logger.info("%s", plan.sentence())
    validate_parsed_serve_args(args)
    return args


def _sizes_kv_cache(args: Namespace) -> bool:
    """Whether the user chose the size of the KV cache, in one of vLLM's three ways."""
    chosen = args.kv_cache_memory_bytes is not None or bool(os.environ.get("VLLM_CPU_KVCACHE_SPACE"))
    return chosen or args.gpu_memory_utilization != AsyncEngineArgs.gpu_memory_utilization


def _is_one_process(args: Namespace) -> bool:
    """Whether the model can run in the engine's own process.

    The default of vLLM on CPUs is a worker process that spins for work: on two cores that costs a third
    to two thirds of the throughput and all of its steadiness (docs/cpu-performance.md).
    """
    workers = args.tensor_parallel_size * args.pipeline_parallel_size
    return args.distributed_executor_backend is None and bool(workers == 1)


def set_environment(model: str) -> None:
    """Defaults vLLM and the Hub client read from the environment; what is set already stays."""
    if current_platform.is_cpu():
        # vLLM compiles a few samplers' helpers at their first use, which takes seconds and a C++ compiler; a
        # machine without one would lose its engine to the first request for logprobs.
        os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")
        # One core is the HTTP server's. An OpenMP team on all of them waits at every barrier for that one.
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) - 1)))
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    # A process that serves has threads, and a fork of it could inherit a lock that nobody gives back.
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    if Path(model).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


@asynccontextmanager
async def launch(
    args: Namespace, *, lora_requests_info: bool = False, beside_others: bool = False
) -> AsyncIterator[Engine]:
    """The engine, running for as long as the context is open.

    `lora_requests_info` publishes vLLM's metric of that name.
    `beside_others`: this event loop has others to answer meanwhile, and must not stand still.
    Raises PluginMissing where it would answer wrongly.
    """
    async with (
        client_beside_others(args) if beside_others else build_async_engine_client(args) as client,
        calls_end_with_engine(client),
    ):
        runtime_weights = await _check_plugin(client)
        bound_lora_info(client, lora_requests_info)
        count_tokens(client)
        tasks = await client.get_supported_tasks()
        app = build_app(args, tasks, client.model_config)
        await init_app_state(client, app.state, args, tasks)
        config = client.vllm_config
        # vLLM's app freezes the heap as it starts. The last engine's client is frozen and full of cycles: it
        # would stay for ever, with its ZeroMQ threads, pipes and memory.
        gc.unfreeze()
        async with app.router.lifespan_context(app):
            yield Engine(
                client=client,
                app=app,
                models=app.state.openai_serving_models,
                base=app.state.openai_serving_models.base_model_paths[0].name,
                model_dir=_directory_of(args),
                max_model_len=config.model_config.max_model_len,
                max_lora_rank=config.lora_config.max_lora_rank,
                max_loras=config.lora_config.max_loras,
                max_cpu_loras=config.lora_config.max_cpu_loras,
                dtype=config.lora_config.lora_dtype,
                runtime_weights=runtime_weights,
            )


async def _check_plugin(client: Any) -> bool:
    """Whether the workers weigh rows per request. Raises PluginMissing."""
    backends = await client.collective_rpc("lora_backend")
    for backend in backends:
        grouped = backend["grouped"] or not current_platform.is_cpu()
        if not (backend["composes"] and grouped):
            raise PluginMissing(
                f"vLLM's worker runs without lora-compose's plugin ({backend}); is the package installed in "
                "this environment, and does VLLM_PLUGINS (if set) name lora_compose?"
            )
    return all(backend["runtime_weights"] for backend in backends)


def _directory_of(args: Namespace) -> Path:
    """Where the model's files are: the directory given, or the Hub cache's snapshot that vLLM just read."""
    if Path(args.model).is_dir():
        return Path(args.model).resolve()
    return Path(snapshot_download(args.model, revision=args.revision, local_files_only=True))
