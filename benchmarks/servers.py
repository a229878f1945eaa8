"""Commands that start the compared servers, all with the same engine options.

`DIRECT_OPTIONS` repeats the defaults that our `serve` passes to vLLM, because importing them would import
vLLM. A test parses both with vLLM's own parser and compares the results.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from lora_compose.adapters.models.cache import name_of
from lora_compose.benchmarks.machine import REPOSITORY
from lora_compose.server.client.process import DEFAULT_ENVIRONMENT, ServerProcess, serve_command
from lora_compose.server.cpu_defaults import defaults_for, is_cpu_build
from lora_compose.server.memory import plan_kv_cache

EMBEDDED_BASE = REPOSITORY / "training" / "testbed" / "base"
EMBEDDED_ADAPTERS = REPOSITORY / "training" / "testbed" / "trained"
EMBEDDED_OPTIONS = (
    *("--served-model-name", "testbed-base"),
    *("--tool-call-parser", "hermes", "--enable-auto-tool-choice"),
)
DIRECT_OPTIONS = (
    *("--enable-lora", "--max-loras", "8", "--max-lora-rank", "64", "--max-cpu-loras", "64"),
    *("--worker-extension-cls", "lora_compose.server.engine.worker.extension.CompositionWorkerExtension"),
    *("--disable-fastapi-docs", "--shutdown-timeout", "5"),
)
DIRECT_CPU_OPTIONS = (
    "--enforce-eager",
    *("--distributed-executor-backend", "vllm.v1.executor.uniproc_executor.UniProcExecutor"),
)
# Our server writes no access log, so vLLM's app must not either.
DIRECT_LOG_OPTIONS = ("--disable-uvicorn-access-log", "--uvicorn-log-level", "warning")
SHARED_OPTIONS = ("--enable-prompt-tokens-details",)
ENVIRONMENT = DEFAULT_ENVIRONMENT | {"VLLM_NO_USAGE_STATS": "1"}


def our_command(port: int, model: str, home: Path, adapter_root: Path, options: Sequence[str]) -> list[str]:
    """The command of `lora-compose serve`, with its registry under `home`."""
    paths = ["--data-dir", str(home / "data"), "--adapter-root", str(adapter_root)]
    return serve_command(port, ["--model", model, *paths, *SHARED_OPTIONS, *options])


def direct_command(port: int, model: str, on_cpu: bool, options: Sequence[str]) -> list[str]:
    """The command of vLLM's own HTTP app with our plugin in the engine, but without our HTTP layer."""
    app = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1"]
    arguments = ["--port", str(port), *engine_options(model, on_cpu), *DIRECT_LOG_OPTIONS]
    return [*app, *arguments, *SHARED_OPTIONS, *options]


def engine_options(model: str, on_cpu: bool) -> list[str]:
    """Options for vLLM's own parser that give the same result as `serve --model MODEL`."""
    embedded = Path(model).is_dir() and Path(model).resolve() == EMBEDDED_BASE
    name = name_of(model)
    return [
        *(EMBEDDED_OPTIONS if embedded else ()),
        *(("--served-model-name", name) if name else ()),
        *("--model", model, "--no-use-tqdm-on-load"),
        *DIRECT_OPTIONS,
        *((*DIRECT_CPU_OPTIONS, *_chosen_options(model)) if on_cpu else ()),
    ]


def _chosen_options(model: str) -> list[str]:
    """The data type and the KV cache that `serve` chooses.

    vLLM's default for the cache is 92 % of all memory, which is rarely free."""
    dtype = defaults_for(model).dtype
    return ["--dtype", dtype, "--kv-cache-memory-bytes", str(plan_kv_cache(model, dtype).kv_cache)]


def server_environment(model: str) -> dict[str, str]:
    """The environment of a server: `ENVIRONMENT`, and on a CPU the threads that `serve` chooses.

    This process's own variables override both."""
    threads = {"OMP_NUM_THREADS": str(defaults_for(model).threads)} if is_cpu_build() else {}
    return ENVIRONMENT | threads | dict(os.environ)


def recorded_environment(model: str) -> dict[str, str]:
    """The part of `server_environment` that a result records."""
    recorded = {*ENVIRONMENT, "OMP_NUM_THREADS"}
    return {name: value for name, value in server_environment(model).items() if name in recorded}


def stock_command(port: int, model: str, on_cpu: bool) -> list[str]:
    """The command of stock vLLM: the same engine options, without our code."""
    command = direct_command(port, model, on_cpu, options=[])
    at = command.index("--worker-extension-cls")
    return command[:at] + command[at + 2 :]


def stock_environment() -> dict[str, str]:
    """The environment of stock vLLM: our plugin is off, and adapters can be loaded at run time."""
    return {"VLLM_PLUGINS": "", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}


def running(
    command: Sequence[str], model: str, port: int, log: Path, environment: Mapping[str, str] | None = None
) -> ServerProcess:
    """Start a server of `model` in the environment of the benchmarks. Every server answers /health."""
    variables = server_environment(model) | dict(environment or {})
    return ServerProcess.run(command, port, log, variables, ready_path="/health")
