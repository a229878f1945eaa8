"""Writes docs/http-api.md from the same tables as the OpenAPI document.

python -m lora_compose.server.openapi_page > docs/http-api.md
"""

import sys
from collections import defaultdict

from lora_compose.server.api.error_codes import ERROR_CODES
from lora_compose.server.api.openapi_document import DocumentedRoute, documented_routes, roles, summary
from lora_compose.server.api.operations import OPERATIONS
from lora_compose.server.app import routes
from lora_compose.server.paths import COMPOSING, TRANSLATED

HEAD = """# HTTP

Written by `python -m lora_compose.server.openapi_page`. A running server returns the same information with
every schema at `GET /openapi.json` (OpenAPI 3.1).

Every response has the header `x-request-id`: the id of the request, if it has up to 128 letters, digits, `.`,
`_`, `:` or `-`, else a new one. Every error has the body `{"error": {"message", "type", "param", "code"}}`.
Errors with status 429 and 503 have the header `retry-after` in seconds. All other errors, and a 429 that
waiting cannot solve, have `x-should-retry: false`. In a stream, an error is the last event:
`data: {"error": ...}`.

The routes for clients of other servers (`/`, `/generate`, `/generate_stream`, `/info`, `/api/...`) send
errors in the shape that their clients read: `{"error": "message", "code", "param"}`, for TGI also with
`error_type` ([clients](clients.md)).
"""


def page() -> str:
    """The complete text of docs/http-api.md."""
    routed = sorted(every_operation(), key=lambda route: (route.path.removeprefix("/v1"), route.method))
    lines = [
        HEAD,
        "## Routes",
        "",
        "| route | what it does | roles | request fields | statuses |",
        "|---|---|---|---|---|",
    ]
    lines += map(_row, routed)
    lines += [
        "",
        "\\* and the fields of a composition: `adapters`, `composition`, `lora` and `merged_adapters`.",
    ]
    lines += [
        "",
        "A key for the whole server (operator) may use every route. Other methods get 405, other paths 404.",
    ]
    lines += ["", "## Codes", "", "| status | code | meaning |", "|---|---|---|"]
    lines += [f"| {error.status} | `{code}` | {error.meaning} |" for code, error in ERROR_CODES.items()]
    return "\n".join([*lines, ""])


def every_operation() -> tuple[DocumentedRoute, ...]:
    """Every route with its method, including those that forward to vLLM."""
    forwarded = (DocumentedRoute("POST", path, "") for path in (*COMPOSING, *TRANSLATED))
    return (*forwarded, *documented_routes(routes()))


def _row(route: DocumentedRoute) -> str:
    operation = OPERATIONS[route.method, route.path]
    by_status = defaultdict(list)
    for code in operation.codes:
        by_status[ERROR_CODES[code].status].append(code)
    answers = [*map(str, operation.answers), *map(str, sorted(by_status))]
    who = ", ".join(roles(route)) or "operator"
    cells = (f"`{route.method} {route.path}`", summary(route), who, _reads(route), " ".join(answers))
    return f"| {' | '.join(cells)} |"


def _reads(route: DocumentedRoute) -> str:
    operation = OPERATIONS[route.method, route.path]
    fields = [f"`?{operation.flag}`"] if operation.flag else []
    if isinstance(operation.body, str):
        fields.append("vLLM's fields\\*")
    elif operation.body is not None:
        fields += [f"`{name}`" for name in sorted(operation.body.model_fields)]
    return " ".join(fields)


if __name__ == "__main__":
    sys.stdout.write(page())
