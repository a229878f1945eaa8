"""Start the servers that are compared, as people do: by their commands, with the same engine options.

`DIRECT_OPTIONS` repeats the defaults our `serve` gives vLLM (this package imports no server code); a test
compares what vLLM's own parser makes of both.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

import httpx

from adapters.errors import LoraComposeError
from benchmarks.machine import REPOSITORY

EMBEDDED_BASE = REPOSITORY / "training" / "testbed" / "base"
EMBEDDED_ADAPTERS = REPOSITORY / "training" / "testbed" / "trained"
EMBEDDED_OPTIONS = (
    *("--served-model-name", "testbed-base"),
    *("--tool-call-parser", "hermes", "--enable-auto-tool-choice"),
)
DIRECT_OPTIONS = (
    *("--enable-lora", "--max-loras", "8", "--max-lora-rank", "64", "--max-cpu-loras", "64"),
    *("--worker-extension-cls", "server.engine.worker.CompositionWorkerExtension"),
    *("--disable-fastapi-docs", "--shutdown-timeout", "5"),
)
DIRECT_CPU_OPTIONS = (
    *("--enforce-eager", "--dtype", "float32"),
    *("--distributed-executor-backend", "vllm.v1.executor.uniproc_executor.UniProcExecutor"),
)
# Our server writes no access log either.
DIRECT_LOG_OPTIONS = ("--disable-uvicorn-access-log", "--uvicorn-log-level", "warning")
SHARED_OPTIONS = ("--enable-prompt-tokens-details",)
ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) - 1)),
}
START_SECONDS = 300
STOP_SECONDS = 60
LOG_LINES = 40


def our_command(port: int, model: str, home: Path, adapter_root: Path, options: Sequence[str]) -> list[str]:
    """`lora-compose serve` with a registry of its own under `home`."""
    serve = [str(Path(sys.executable).with_name("lora-compose")), "serve", "--port", str(port)]
    paths = ["--data-dir", str(home / "data"), "--adapter-root", str(adapter_root)]
    return [*serve, "--model", model, *paths, *SHARED_OPTIONS, *options]


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


@dataclass(frozen=True)
class Server:
    """A process we started and where it listens."""

    process: "subprocess.Popen[bytes]"
    url: str
    log: Path

    def wait_until_ready(self) -> None:
        """Raises LoraComposeError `server_not_ready`, with the end of its log: it ended, or took too long."""
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                end = "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_LINES:])
                raise LoraComposeError("server_not_ready", f"{self.url} did not get ready:\n{end}")
            time.sleep(0.25)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=5).is_success
        except httpx.TransportError:
            return False


def is_cpu_build() -> bool:
    """Whether the vLLM installed here is the one for CPUs; importing it to ask takes ten seconds."""
    return any(found.metadata["Name"] == "vllm-cpu" for found in distributions())


def server_environment() -> dict[str, str]:
    """Our environment, with defaults that keep two servers small and quiet."""
    return ENVIRONMENT | dict(os.environ)


def stock_command(port: int, model: str) -> list[str]:
    """vLLM's app as it comes: same engine options, none of our code in it."""
    command = direct_command(port, model, on_cpu=True, options=[])
    at = command.index("--worker-extension-cls")
    return command[:at] + command[at + 2 :]


def stock_environment() -> dict[str, str]:
    """Our plugin left out, and adapters may be registered while it runs."""
    return {"VLLM_PLUGINS": "", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}


@contextmanager
def running(
    command: Sequence[str], port: int, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A server in a session of its own, ended with all its children when the context is left."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(command),
            stdout=output,
            stderr=subprocess.STDOUT,
            env=server_environment() | dict(environment or {}),
            start_new_session=True,
        )
    try:
        yield Server(process, f"http://127.0.0.1:{port}", log)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
