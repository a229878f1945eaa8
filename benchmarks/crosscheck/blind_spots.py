"""`python -m lora_compose.benchmarks.crosscheck.blind_spots` measures what `vllm.benchmarks.serve` does not
show.

- Wrong answers: a fake server answers at once and wrongly. The script counts how many of these answers vLLM's
  benchmark accepts and how many our client accepts.
- Cold adapters: the time to the first token of adapters that no request has used, after vLLM's own warm-up.
"""

import asyncio
import json
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any

import typer

from lora_compose.benchmarks.client import open_client
from lora_compose.benchmarks.crosscheck.crosscheck import BASE
from lora_compose.benchmarks.crosscheck.vllm_bench import ClosedLoop, VllmBench, started
from lora_compose.benchmarks.servers import EMBEDDED_BASE, our_command, running
from lora_compose.benchmarks.serving.load import Sending, send_pass
from lora_compose.benchmarks.synthetic import write_fresh
from lora_compose.benchmarks.workload import completion_body
from lora_compose.server.client.http import Client
from lora_compose.server.client.process import free_port

CHUNK = b'data: {"choices": [{"text": "a", "index": 0}]}\n\n'
USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 8, "completion_tokens": 1}}\n\n'
ERROR = b'data: {"error": {"message": "the engine died", "code": "internal_error"}}\n\n'
DONE = b"data: [DONE]\n\n"
STREAMS = {
    "one token of the 32 requested": CHUNK + USAGE + DONE,
    "an error event after the first token": CHUNK + ERROR + DONE,
    "cut off after the first token": CHUNK,
    "HTTP 503": b"",
}
"""The fake server's answer, by the `model` of the request."""


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        stream = STREAMS[body["model"]]
        self.send_response(200 if stream else 503)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self.wfile.write(stream)

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        """Write no access log."""


@contextmanager
def fake_server() -> Iterator[str]:
    """Runs the fake server until the context closes. Yields its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


REQUESTS = 8
CAPACITY = 8
NO_CHECK = ("--ready-check-timeout-sec", "0")


def wrong_answers(vllm_bench: VllmBench) -> list[dict[str, Any]]:
    """For each kind of wrong answer, how many of `REQUESTS` each benchmark counts as completed."""
    rows = []
    with fake_server() as url:
        for kind in STREAMS:
            load = ClosedLoop(kind, 2, REQUESTS, 8, 32, 0)
            theirs = vllm_bench.run(url, str(EMBEDDED_BASE), load, NO_CHECK)
            ours = asyncio.run(_completed(url, kind))
            rows.append({"answer": kind, "vllm bench": theirs["completed"], "ours": ours, "of": REQUESTS})
    return rows


async def _completed(url: str, model: str) -> int:
    body = completion_body(model, "abcdefgh", 32, stream=True)
    async with open_client(url, 2) as client:
        rows, _ = await send_pass(client, [Sending(body)] * REQUESTS, 2)
    return sum(row.failure is None for row in rows)


def cold_adapters(vllm_bench: VllmBench, home: Path) -> dict[str, Any]:
    """Median milliseconds to the first token of `CAPACITY` adapters, for their first and second request.

    The same number of other adapters fill the host memory first, so the measured ones are not prepared when
    they are registered.
    """
    root, port = home / "adapters", free_port()
    root.mkdir()
    paths = write_fresh(2 * CAPACITY, root)
    options = ["--max-cpu-loras", str(CAPACITY)]
    command = our_command(port, str(EMBEDDED_BASE), home, root, options)
    with running(command, str(EMBEDDED_BASE), port, home / "server.log") as server:
        server.wait_until_ready()
        with Client(server.url) as client:
            for path in paths:
                client.register({"name": path.name, "path": str(path)})
        names = [path.name for path in paths[CAPACITY:]]
        load = ClosedLoop(BASE, 1, 2 * CAPACITY, 8, 8, 0)
        assigned = ["--lora-modules", *names, "--lora-assignment", "round-robin"]
        result = vllm_bench.run(server.url, str(EMBEDDED_BASE), load, assigned)
    times = [1000 * seconds for seconds in result["ttfts"]]
    return {
        "first_ask_ms": median(times[:CAPACITY]),
        "second_ask_ms": median(times[CAPACITY:]),
        "reported_median_ms": result["median_ttft_ms"],
        "reported_p99_ms": result["p99_ttft_ms"],
    }


def blind_spots() -> None:
    """Measure wrong answers and cold adapters, and print both as one line of JSON."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lora-compose-bench-")))
        vllm_bench = stack.enter_context(started(home))
        document = {
            "wrong_answers": wrong_answers(vllm_bench),
            "cold_adapters": cold_adapters(vllm_bench, home),
        }
    typer.echo(json.dumps(document))


if __name__ == "__main__":
    typer.run(blind_spots)
