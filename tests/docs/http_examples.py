"""Writes docs/reference/http-examples.md: a request and its answer for every route, from a running server.

python -m tests.docs.http_examples > docs/reference/http-examples.md

The server runs on the embedded base. Its adapters have the names that the examples of the OpenAPI document
use.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from lora_compose.server.api.openapi_document import summary
from lora_compose.server.api.operations import OPERATIONS
from lora_compose.server.openapi_page import every_operation
from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.docs.blocks import ROOT
from tests.running_server import RunningServer

HEAD = """# Examples of every route

Written by `python -m tests.docs.http_examples`: each request was sent to a server on the embedded base, and
its answer is shown. Long texts end with …, and only the first two elements of a list are shown. Some routes
answer with an error here, because the base of the examples does not offer what they need; the error says
what. With keys, every request also has `-H "authorization: Bearer SECRET"`.
[The table of routes](../http-api.md) has roles, fields and error codes.
"""
URL: Final = "http://127.0.0.1:8000"
ROOT_SHOWN: Final = "/srv/adapters"
LINES, TEXT, ITEMS = 40, 120, 2
SOURCES: Final = {"sql": "roll", "polite": "polite", "sql-2": "upper"}
BENCHMARK = {"adapters": ["sql", "polite"], "arms": ["single"], "concurrency": [1], "requests": 16}
VALUES: Final = {
    "/v1/models/{id}": {"id": "sql:0.7+polite"},
    "/v1/adapters/{reference}": {"reference": "sql@prod"},
    "/v1/adapters/{reference}/pin": {"reference": "sql@1"},
    "/v1/adapters/{name}/aliases/{alias}": {"name": "sql", "alias": "prod"},
    "/v1/compositions/{name}": {"name": "duo"},
    "/v1/responses/{id}": {"id": "resp_1"},
    "/v1/responses/{id}/cancel": {"id": "resp_1"},
}
LAST: Final = (
    ("DELETE", "/v1/adapters/{name}/aliases/{alias}"),
    ("DELETE", "/v1/adapters/{reference}/pin"),
    ("DELETE", "/v1/fusion"),
    ("DELETE", "/v1/compositions/{name}"),
    ("DELETE", "/v1/adapters/{reference}"),
    ("POST", "/v1/unload_lora_adapter"),
)
"""Removals, in the order in which they are sent: after everything else."""
FIRST: Final = (
    ("POST", "/v1/adapters"),
    ("PUT", "/v1/adapters/{name}/aliases/{alias}"),
    ("PUT", "/v1/adapters/{reference}/pin"),
    ("POST", "/v1/compositions"),
    ("POST", "/v1/benchmarks"),
)


@dataclass(frozen=True)
class Example:
    """A request and what came back. `path` has values for its parameters."""

    method: str
    route: str
    path: str
    body: Any
    status: int
    answer: str
    """Shortened. JSON, or the first lines of another text."""

    def section(self) -> str:
        """Markdown: the request for a shell, the status, and the answer."""
        method = f" -X {self.method}" if self.method not in ("GET", "POST") or self.body is None else ""
        command = f"curl -s{'' if self.method == 'GET' else method} {URL}{self.path}"
        if self.body is not None:
            command += f" -H 'content-type: application/json' \\\n  -d '{json.dumps(self.body)}'"
        answer = f"\n```json\n{self.answer}\n```\n" if self.answer else ""
        return f"```sh\n{command}\n```\n\nStatus {self.status}.\n{answer}"


def shortened(value: Any) -> Any:
    """The value with long texts and long lists cut."""
    if isinstance(value, str):
        return value if len(value) <= TEXT else value[: TEXT - 1] + "…"
    if isinstance(value, list):
        return [shortened(item) for item in value[:ITEMS]]
    if isinstance(value, dict):
        return {key: shortened(item) for key, item in value.items()}
    return value


def ask(client: httpx.Client, method: str, route: str, home: Path, values: dict[str, str]) -> Example:
    """Send the example of a route."""
    operation = OPERATIONS[method, route]
    body = operation.examples[0] if operation.examples else None
    if route == "/v1/benchmarks" and method == "POST":
        body = BENCHMARK
    path = route.format(**(VALUES.get(route, {}) | values))
    if (method, route) == ("DELETE", "/v1/adapters/{reference}"):
        path = "/v1/adapters/polite"
    sent = json.dumps(body).replace(ROOT_SHOWN, str(home)) if body is not None else None
    headers = {"content-type": "application/json"} if sent is not None else {}
    reply = client.request(method, path, content=sent, headers=headers)
    text = reply.text.replace(str(home), ROOT_SHOWN)
    return Example(method, route, path, body, reply.status_code, _shown(route, reply, text))


def _shown(route: str, reply: httpx.Response, text: str) -> str:
    if "json" in reply.headers.get("content-type", "") and "ndjson" not in reply.headers["content-type"]:
        value = shortened(json.loads(text))
        if route == "/openapi.json":
            value = {"openapi": value["openapi"], "info": value["info"]}
        text = json.dumps(value, indent=2, ensure_ascii=False)
    lines = [shortened(line) for line in text.splitlines()]
    return "\n".join([*lines[:LINES], *(["…"] if len(lines) > LINES else [])]).strip()


def record(client: httpx.Client, home: Path) -> Iterator[Example]:
    """The examples of all routes, in the order in which they are sent."""
    for name, source in SOURCES.items():
        shutil.copytree(ADAPTERS_DIR / source, home / name)
    routes = [(route.method, route.path) for route in every_operation()]
    done = {key: ask(client, *key, home, {}) for key in FIRST[:1]}
    for name, directory in (("polite", "polite"), ("sql", "sql-2")):
        offer = {"name": name, "path": str(home / directory)}
        client.post("/v1/adapters", json=offer).raise_for_status()
    done |= {key: ask(client, *key, home, {}) for key in FIRST[1:]}
    benchmark = {"id": json.loads(done["POST", "/v1/benchmarks"].answer)["id"]}
    others = sorted(key for key in routes if key not in done and key not in LAST)
    for key in (*others, *LAST):
        values = benchmark if "benchmarks" in key[1] else {}
        done[key] = ask(client, *key, home, values)
    yield from (done[key] for key in sorted(done, key=lambda key: (key[1].removeprefix("/v1"), key[0])))


def page(examples: Iterator[Example]) -> str:
    """The complete text of docs/reference/http-examples.md."""
    about = {(route.method, route.path): summary(route) for route in every_operation()}
    parts = [HEAD]
    for example in examples:
        key = (example.method, example.route)
        parts.append(f"## `{' '.join(key)}`\n\n{about[key]}\n\n{example.section()}")
    return "\n".join(parts)


def main() -> None:
    """Start a server, send every example, and write the page to stdout."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        (home / "adapters").mkdir()
        running = RunningServer.start(home / "data", home / "log", ["--adapter-root", str(home / "adapters")])
        try:
            running.wait_until_ready()
            with httpx.Client(base_url=running.url, timeout=120) as client:
                text = page(record(client, home / "adapters"))
        finally:
            running.stop()
    sys.stdout.write(text.replace(running.url, URL).replace(str(ROOT), "/opt/lora-compose"))


if __name__ == "__main__":
    main()
