"""A server that answers at once and wrongly, for finding out what a benchmark notices."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

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
