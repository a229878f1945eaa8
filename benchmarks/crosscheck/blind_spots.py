"""`python -m lora_compose.benchmarks.crosscheck.blind_spots`: what `vllm.benchmarks.serve` does not say, measured.

Its answer to a server that is planted to answer wrongly, beside our client's; and the first tokens of
adapters nobody has used yet, after its own warm-up.

A server that answers at once and wrongly, for finding out what a benchmark notices.
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
from lora_compose.benchmarks.crosscheck.vllm_bench import ClosedLoop, Referee, started
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
    "one token of those asked for": CHUNK + USAGE + DONE,
    "an error event after the first token": CHUNK + ERROR + DONE,
    "cut off after the first token": CHUNK,
    "HTTP 503": b"",
}
"""What comes back, by the model that is asked for."""


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
        """Say nothing."""


@contextmanager
def planted_server() -> Iterator[str]:
    """Its URL, for as long as the context is open."""
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


def wrong_answers(referee: Referee) -> list[dict[str, Any]]:
    """By kind of wrong answer, how many of `REQUESTS` each of the two counts as completed."""
    found = []
    with planted_server() as url:
        for kind in STREAMS:
            load = ClosedLoop(kind, 2, REQUESTS, 8, 32, 0)
            theirs = referee.run(url, str(EMBEDDED_BASE), load, NO_CHECK)
            ours = asyncio.run(_completed(url, kind))
            found.append({"answer": kind, "vllm bench": theirs["completed"], "ours": ours, "of": REQUESTS})
    return found


async def _completed(url: str, model: str) -> int:
    body = completion_body(model, "abcdefgh", 32, stream=True)
    async with open_client(url, 2) as client:
        rows, _ = await send_pass(client, [Sending(body)] * REQUESTS, 2)
    return sum(row.failure is None for row in rows)


def cold_adapters(referee: Referee, home: Path) -> dict[str, Any]:
    """Each of `CAPACITY` adapters asked twice, in turn: median milliseconds to the first token, by time.

    As many others fill the host memory before, so that none of these is prepared when it is registered.
    """
    root, port = home / "adapters", free_port()
    root.mkdir()
    paths = write_fresh(2 * CAPACITY, root)
    options = ["--max-cpu-loras", str(CAPACITY)]
    command = our_command(port, str(EMBEDDED_BASE), home, root, options)
    with running(command, port, home / "server.log") as server:
        server.wait_until_ready()
        with Client(server.url) as client:
            for path in paths:
                client.register({"name": path.name, "path": str(path)})
        names = [path.name for path in paths[CAPACITY:]]
        load = ClosedLoop(BASE, 1, 2 * CAPACITY, 8, 8, 0)
        assigned = ["--lora-modules", *names, "--lora-assignment", "round-robin"]
        found = referee.run(server.url, str(EMBEDDED_BASE), load, assigned)
    times = [1000 * seconds for seconds in found["ttfts"]]
    return {
        "first_ask_ms": median(times[:CAPACITY]),
        "second_ask_ms": median(times[CAPACITY:]),
        "reported_median_ms": found["median_ttft_ms"],
        "reported_p99_ms": found["p99_ttft_ms"],
    }


def traps() -> None:
    """Print both as one line of JSON."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lora-compose-bench-")))
        referee = stack.enter_context(started(home))
        found = {"wrong_answers": wrong_answers(referee), "cold_adapters": cold_adapters(referee, home)}
    typer.echo(json.dumps(found))


if __name__ == "__main__":
    typer.run(traps)
