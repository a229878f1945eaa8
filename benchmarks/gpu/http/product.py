"""The product as a user runs it: its command, and a server to talk to.

All use of the server process and of the HTTP client is here.
"""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lora_compose.benchmarks.gpu.run import CheckRun
from lora_compose.server.client.http import Client
from lora_compose.server.client.process import COMMAND, ServerProcess

GRAPHS = ("--compilation-config", '{"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY"}')
SCRIPT = """#!{python}
from lora_compose.adapters.command_line import main

if __name__ == "__main__":
    main()
"""
STANDARD_OUTPUT, STANDARD_ERROR = 3000, 1500
"""How many characters of the end of each a finding holds."""


@dataclass(frozen=True)
class ProductRun:
    """A check over HTTP. `out` is for logs, registries and results."""

    run: CheckRun
    out: Path
    arms: str
    concurrency: str
    bench_seconds: int

    def engine_options(self, memory: float) -> list[str]:
        """For vLLM: CUDA graphs without Inductor, and a share of the GPU's memory."""
        if self.run.on_cpu:
            return []
        return [*GRAPHS, "--gpu-memory-utilization", str(memory)]


@dataclass(frozen=True)
class Serving:
    """A server that takes requests."""

    url: str
    client: Client
    start_seconds: float


def ensure_command(command: Path = Path(COMMAND)) -> Path:
    """The `lora-compose` command beside this Python; written if the product is not installed.

    vLLM starts its processes by importing the main module again, so the script needs its guard.
    """
    if not command.exists() or "__main__" not in command.read_text():
        command.write_text(SCRIPT.format(python=sys.executable))
        command.chmod(0o755)
    return command


@contextmanager
def serving(log: Path, options: Sequence[str]) -> Iterator[Serving]:
    """A server on the embedded base, ended when the context is left.

    Raises LoraComposeError `server_not_ready` if it does not start."""
    began = time.perf_counter()
    with ServerProcess.serve(options, log) as server, Client(server.url) as client:
        server.wait_until_ready()
        yield Serving(server.url, client, time.perf_counter() - began)


def bench(product: ProductRun, name: str, options: Sequence[str]) -> None:
    """Run `lora-compose bench serve`. The results are files; the finding has the end of its output."""
    files = ["--output", str(product.out / f"{name}.json"), "--markdown", str(product.out / f"{name}.md")]
    limit = ["--max-seconds", str(product.bench_seconds)]
    began = time.perf_counter()
    command = [str(ensure_command()), "bench", "serve", *options, *limit, *files]
    done = subprocess.run(command, capture_output=True, text=True)
    product.run.say(
        "bench",
        ok=done.returncode == 0,
        rc=done.returncode,
        seconds=round(time.perf_counter() - began, 1),
        tail=done.stdout[-STANDARD_OUTPUT:] + done.stderr[-STANDARD_ERROR:],
    )
