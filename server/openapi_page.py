"""docs/http-api.md, from the same tables as the OpenAPI document.

python -m lora_compose.server.openapi_page > docs/http-api.md
"""

import sys
from collections import defaultdict

from lora_compose.server.api.error_codes import ERROR_CODES
from lora_compose.server.api.openapi_document import Described, described, roles, summary
from lora_compose.server.api.operations import OPERATIONS
from lora_compose.server.app import routes
from lora_compose.server.paths import GENERATING, NAMING

HEAD = """# HTTP

Written by `python -m lora_compose.server.openapi_page`. A running server tells the same, with every schema, at
`GET /openapi.json` (OpenAPI 3.1).

Every reply has `x-request-id`: the request's own, if it has up to 128 letters, digits, `.`, `_`, `:` or
`-`, else a new one. Every refusal is `{"error": {"message", "type", "param", "code"}}`; 429 and 503 say
`retry-after` in seconds, the rest `x-should-retry: false`. Inside a stream an error is a
`data: {"error": ...}` event, the last one.
"""


def page() -> str:
    """The whole of it."""
    routed = sorted(every_operation(), key=lambda one: (one.path.removeprefix("/v1"), one.method))
    lines = [HEAD, "## Routes", "", "| route | what | who | reads | answers |", "|---|---|---|---|---|"]
    lines += map(_row, routed)
    lines += [
        "",
        "\\* and the fields of a composition: `adapters`, `composition`, `lora`, `merged_adapters`.",
    ]
    lines += ["", "A key for the whole server may do everything. Any other method: 405, any other path: 404."]
    lines += ["", "## Codes", "", "| status | code | meaning |", "|---|---|---|"]
    lines += [f"| {about.status} | `{code}` | {about.meaning} |" for code, about in ERROR_CODES.items()]
    return "\n".join([*lines, ""])


def every_operation() -> tuple[Described, ...]:
    """Ours, and vLLM's that are passed on."""
    passed_on = (Described("POST", path, "") for path in (*GENERATING, *NAMING))
    return (*passed_on, *described(routes()))


def _row(one: Described) -> str:
    operation = OPERATIONS[one.method, one.path]
    by_status = defaultdict(list)
    for code in operation.codes:
        by_status[ERROR_CODES[code].status].append(code)
    answers = [*map(str, operation.answers), *map(str, sorted(by_status))]
    who = ", ".join(roles(one)) or "operator"
    return f"| `{one.method} {one.path}` | {summary(one)} | {who} | {_reads(one)} | {' '.join(answers)} |"


def _reads(one: Described) -> str:
    operation = OPERATIONS[one.method, one.path]
    found = [f"`?{operation.flag}`"] if operation.flag else []
    if isinstance(operation.body, str):
        found.append("vLLM's fields\\*")
    elif operation.body is not None:
        found += [f"`{name}`" for name in sorted(operation.body.model_fields)]
    return " ".join(found)


if __name__ == "__main__":
    sys.stdout.write(page())
