"""The bounded form of `tests.campaigns.openapi_fuzz`: the replies of a server match its document.

hypothesis generates bodies and names. Each reply is checked against its operation: status, content type,
headers, schema, and the codes that a status may have.
"""

from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from lora_compose.server.api.openapi_document import document
from lora_compose.server.openapi_page import every_operation
from tests.running_server import RunningServer

DOCUMENT = document(every_operation())
BOUNDED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
NAMES = st.sampled_from([
    "roll",
    "upper",
    "roll@1",
    "roll@9",
    "nobody",
    "",
    "a b",
    "../x",
    "%",
    "ü",
    "roll\n",
])
SCALARS = st.none() | st.booleans() | st.integers(-5, 10**12) | st.floats(-3, 3) | st.text(max_size=8) | NAMES
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
FIELDS: tuple[str, ...] = (
    "name",
    "version",
    "path",
    "hf",
    "alias",
    "digest",
    "lineage",
    "adapters",
    "composition",
    "lora",
)
FIELDS += (
    "merged_adapters",
    "model",
    "lora_name",
    "lora_path",
    "load_inplace",
    "ttl_seconds",
    "weight",
    "scale",
    "ids",
)
MEMBER = st.dictionaries(st.sampled_from(["name", "id", "weight", "scale", "wieght"]), SCALARS, max_size=3)
METHOD = st.dictionaries(
    st.sampled_from(["method", "rank", "density", "seed", "majority_sign_method"]),
    SCALARS | st.sampled_from(["ties", "svd", "cat", "total"]),
    max_size=4,
)
BODIES = st.dictionaries(
    st.sampled_from(FIELDS), NAMES | st.lists(MEMBER, max_size=3) | METHOD | ANYTHING, max_size=4
)
LONG = {"/v1/benchmarks", "/v1/fusion", "/metrics", "/openapi.json"}
"""Paths that are not called many times: a process, a switch of the base, and two long texts."""
OPERATIONS = [
    (method, path)
    for path, methods in DOCUMENT["paths"].items()
    for method in methods
    if method != "delete" and path not in LONG and path != "/v1/responses"
]


@given(st.data())
@BOUNDED
def test_every_reply_is_as_the_document_says(server: RunningServer, data: st.DataObject) -> None:
    method, path = data.draw(st.sampled_from(OPERATIONS))
    filled = path.format(reference=data.draw(NAMES), name=data.draw(NAMES), alias="prod", id=data.draw(NAMES))
    told = DOCUMENT["paths"][path][method]
    body = data.draw(BODIES | ANYTHING) if "requestBody" in told else None
    limits = (
        {"max_tokens": 2} if isinstance(body, dict) and path.startswith(("/v1/ch", "/v1/completions")) else {}
    )
    content = body | limits if isinstance(body, dict) else body
    sent: dict[str, Any] = {"json": content} if "requestBody" in told else {}
    reply = httpx.request(method, server.url + quote(filled), timeout=60, **sent)
    hold(reply, told)


def hold(reply: httpx.Response, told: dict[str, Any]) -> None:
    assert reply.headers["x-request-id"]
    assert str(reply.status_code) in told["responses"], (reply.request.url, reply.text)
    answer = told["responses"][str(reply.status_code)]
    assert reply.status_code < 500, reply.text
    if reply.status_code >= 400:
        assert reply.headers["x-should-retry"] == "false"
    media = reply.headers.get("content-type", "").partition(";")[0]
    if "content" in answer:
        schema = {**answer["content"][media]["schema"], "components": DOCUMENT["components"]}
        value = reply.json() if media == "application/json" else reply.text
        found = [error.message for error in Draft202012Validator(schema).iter_errors(value)]
        assert found == [], (reply.request.url, reply.text)
    else:
        assert reply.content == b""


@pytest.mark.parametrize("path", ["/v1/adapters", "/v1/completions", "/v1/compositions", "/v1/fusion"])
@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"\x1f\x8b" + b"\0" * 64, {"content-encoding": "gzip"}, 415),
        (b"{}", {"content-type": "text/xml"}, 415),
        (b'{"a": ' * 50_000, {}, 400),
        (b"\xff\xfe", {}, 400),
        (b"", {}, 400),
    ],
)
def test_a_body_of_the_wrong_kind_is_refused_everywhere(
    http: httpx.Client, path: str, content: bytes, headers: dict[str, str], status: int
) -> None:
    method = "PUT" if path == "/v1/fusion" else "POST"
    sent = {"content-type": "application/json"} | headers
    reply = http.request(method, path, content=content, headers=sent)
    assert reply.status_code == status
    hold(reply, DOCUMENT["paths"][path][method.lower()])


@pytest.mark.parametrize(
    "path",
    [
        "//v1/models",
        "/v1/../metrics",
        "/v1/%2e%2e/metrics",
        "/v1/models/",
        "/V1/models",
        "/v1/adapters/%2e%2e%2fx",
    ],
)
def test_a_path_is_taken_as_it_is_written(server: RunningServer, path: str) -> None:
    with httpx.Client() as client:
        reply = client.send(httpx.Request("GET", server.url, extensions={"target": path.encode()}))
    assert reply.status_code == 404
    assert reply.json()["error"]["code"] in {"not_found", "model_not_found"}


def test_a_host_that_is_a_path_opens_nothing(http: httpx.Client) -> None:
    assert http.get("/nothing", headers={"host": "localhost/v1/models?"}).status_code in {400, 404}
