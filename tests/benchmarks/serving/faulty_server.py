"""A small server with faults that a real server does not have: it stalls, answers wrongly, drops requests, is
slow.

It has as much of our HTTP interface as a run needs. It refuses to register adapters and to fuse.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ADAPTER = {"id": "a@1", "digest": "d", "rank": 8}


@dataclass
class Fault:
    """What goes wrong. By default, nothing does. Times are seconds."""

    token_seconds: float = 0.002
    stall_at_request: int | None = None
    wrong_beside_others: bool = False
    drops_every: int | None = None
    one_at_a_time: bool = False
    served: int = 0
    in_flight: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    turn: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def faulty(fault: Fault) -> Iterator[str]:
    """Runs the server until the context closes. Yields its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Faulty", (Handler,), {"fault": fault}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    fault: Fault

    def log_message(self, format: str, *args: Any) -> None:
        """Write no access log."""

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._whole({"data": [{"id": "base"}]})
        elif self.path == "/v1/residency":
            self._whole({"host": {"adapters": []}})
        else:
            self._whole(ADAPTER)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/tokenize":
            self._whole({"tokens": list(range(5, 50))})
            return
        if self.path != "/v1/completions":
            self.send_error(404)
            return
        with self.fault.lock:
            self.fault.served += 1
            self.fault.in_flight += 1
            number, crowded = self.fault.served, self.fault.in_flight > 1
        try:
            self._complete(asked, number, crowded)
        finally:
            with self.fault.lock:
                self.fault.in_flight -= 1

    def _complete(self, asked: dict[str, Any], number: int, crowded: bool) -> None:
        ids = [(sum(asked["prompt"]) + len(asked["model"]) + i) % 97 for i in range(asked["max_tokens"])]
        if not asked.get("stream"):
            self._whole({"choices": [{"token_ids": ids, "logprobs": _logprobs(asked, ids)}]})
        elif self.fault.drops_every and number % self.fault.drops_every == 0:
            self.send_error(500)
        elif self.fault.wrong_beside_others and crowded:
            self._stream([token + 1 for token in ids], 0.0, number)
        elif self.fault.one_at_a_time:
            with self.fault.turn:
                self._stream(ids, self.fault.token_seconds, number)
        else:
            self._stream(ids, self.fault.token_seconds, number)

    def _stream(self, ids: list[int], seconds: float, number: int) -> None:
        self.send_response(200)
        self.end_headers()
        for place, token in enumerate(ids):
            stalls = number == self.fault.stall_at_request and place == 2
            time.sleep(0.3 if stalls else seconds)
            self._event({"choices": [{"token_ids": [token]}]})
        self._event({"choices": [], "usage": {"completion_tokens": len(ids), "prompt_tokens": 1}})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, content: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(content)}\n\n".encode())
        self.wfile.flush()

    def _whole(self, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _logprobs(asked: dict[str, Any], ids: list[int]) -> dict[str, Any]:
    count = len(asked["prompt"]) + len(ids) if asked.get("echo") else len(ids)
    return {"token_logprobs": [-0.1] * count, "top_logprobs": [{"x": -0.1, "y": -3.0}] * len(ids)}
