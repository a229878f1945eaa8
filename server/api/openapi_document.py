"""The OpenAPI document of everything this server has, made from its routes, types, rules and codes.

JSON schemas of the types an operation names, ours and vLLM's, under names of their own in one document.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode
from starlette.routing import BaseRoute, Route

from lora_compose.adapters.errors import Code
from lora_compose.adapters.names import ALIAS_PATTERN, NAME_PATTERN, REFERENCE_PATTERN
from lora_compose.server.api.error_codes import ERROR_CODES
from lora_compose.server.api.operations import FORM, JSON, OPERATIONS, STREAM, Answer, Operation
from lora_compose.server.compositions.from_request import CompositionFields
from lora_compose.server.engine.frontend.api_types import VLLM_TYPES
from lora_compose.server.errors import error_headers, error_type
from lora_compose.server.paths import PROBES
from lora_compose.server.tenants.access import roles_of

TEMPLATE = "#/components/schemas/{model}"


class Schemas:
    """`components` is what the references point into."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        read: list[Any] = [CompositionFields]
        written: list[Any] = []
        for operation in operations:
            read += [operation.body, operation.upload]
            written += [answer.shape for answer in operation.answers.values()]
        self._by_shape, defined = TypeAdapter.json_schemas(
            [*_typed(read, "validation"), *_typed(written, "serialization")], ref_template=TEMPLATE
        )
        self.components: dict[str, Any] = defined["$defs"]

    def of(self, shape: Any, mode: JsonSchemaMode) -> dict[str, Any]:
        """Its schema: a reference, or what it is already."""
        return shape if isinstance(shape, dict) else self._by_shape[shape, mode]

    def body(self, operation: Operation) -> dict[str, Any]:
        """Of the JSON it reads: with our fields where vLLM reads the rest."""
        schema = self.of(operation.body, "validation")
        if not isinstance(operation.body, str):
            return schema
        return {"allOf": [schema, self.of(CompositionFields, "validation")]}


def _typed(shapes: Iterable[Any], mode: JsonSchemaMode) -> list[tuple[Any, JsonSchemaMode, TypeAdapter[Any]]]:
    """Each type once. vLLM's go by their path."""
    types: dict[Any, Any] = {shape: shape for shape in shapes if isinstance(shape, str | type)}
    types |= {path: VLLM_TYPES[path][mode == "serialization"] for path in types if isinstance(path, str)}
    return [(shape, mode, TypeAdapter(found)) for shape, found in types.items()]


ABOUT = (
    "One base model and many LoRA adapters. On each route that generates, `model` or one of the fields of "
    "`CompositionFields` says which adapters answer, how strongly, and stacked or merged. GET routes answer "
    "HEAD as well; any other method is refused with 405 `method_not_allowed`, any other path with 404."
)
PATTERNS = {"name": NAME_PATTERN, "alias": ALIAS_PATTERN, "reference": REFERENCE_PATTERN}
"""Of the parts of a path."""
REQUEST_ID = {
    "description": "The request's own `x-request-id`, or one made for it.",
    "required": True,
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
}


@dataclass(frozen=True)
class Described:
    """A method of a route, and what its function says of itself."""

    method: str
    path: str
    doc: str


def described(routes: Iterable[BaseRoute]) -> tuple[Described, ...]:
    """Every method of every route; HEAD goes with GET."""
    return tuple(
        Described(method, route.path_format, _doc(route))
        for route in routes
        if isinstance(route, Route)
        for method in sorted((route.methods or set()) - {"HEAD"})
    )


@lru_cache(maxsize=1)
def document(routes: Sequence[Described]) -> dict[str, Any]:
    """OpenAPI 3.1. Takes a second the first time: vLLM's types are many."""
    schemas = Schemas(OPERATIONS[one.method, one.path] for one in routes)
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for one in routes:
        paths[one.path][one.method.lower()] = _operation(one, OPERATIONS[one.method, one.path], schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "lora-compose", "version": version("lora-compose"), "description": ABOUT},
        "paths": dict(paths),
        "components": {
            "schemas": schemas.components | {"Error": _error_schema(ERROR_CODES)},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],
    }


def _doc(route: Route) -> str:
    """A function's first paragraph; an ASGI endpoint has none of its own."""
    text = route.endpoint.__doc__ if hasattr(route.endpoint, "__code__") else None
    return " ".join((text or "").partition("\n\n")[0].split())


def summary(one: Described) -> str:
    """The docstring without the method and path it begins with."""
    found = re.sub(r"^`[^`]*`:? ?", "", one.doc)
    text = found or OPERATIONS[one.method, one.path].summary
    return text if text[1:2].isupper() else text[:1].upper() + text[1:]


def roles(one: Described) -> list[str]:
    """Who may, beside a key for the whole server."""
    return ["everybody"] if one.path in PROBES else sorted(roles_of(one.method, one.path))


def _operation(one: Described, operation: Operation, schemas: Schemas) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{one.method.lower()}{one.path}").strip("_"),
        "summary": summary(one),
        "tags": [one.path.removeprefix("/v1").split("/")[1]],
        "x-roles": roles(one),
        "responses": _responses(operation, schemas),
    }
    if parameters := _parameters(one, operation):
        found["parameters"] = parameters
    if operation.body is not None:
        found["requestBody"] = {"required": True, "content": _content(operation, schemas)}
    if one.path in PROBES:
        found["security"] = []
    return found


def _parameters(one: Described, operation: Operation) -> list[dict[str, Any]]:
    found = [
        {"name": name, "in": "path", "required": True, "schema": _path_schema(name)}
        for name in re.findall(r"\{(\w+)\}", one.path)
    ]
    if operation.flag:
        found.append({"name": operation.flag, "in": "query", "schema": {"type": "boolean", "default": False}})
    return found


def _path_schema(name: str) -> dict[str, Any]:
    return (
        {"type": "string", "pattern": PATTERNS[name]}
        if name in PATTERNS
        else {"type": "string", "minLength": 1}
    )


def _content(operation: Operation, schemas: Schemas) -> dict[str, Any]:
    examples = {f"example{index}": {"value": value} for index, value in enumerate(operation.examples, 1)}
    found: dict[str, Any] = {JSON: {"schema": schemas.body(operation), "examples": examples}}
    if operation.upload is not None:
        found[FORM] = {"schema": schemas.of(operation.upload, "validation")}
    return found


def _responses(operation: Operation, schemas: Schemas) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status, answer in operation.answers.items():
        headers = {
            name: {"description": text, "schema": {"type": "string"}}
            for name, text in operation.answer_headers.items()
        }
        found[str(status)] = {
            "description": "Done." if answer.shape is None else "The answer.",
            "headers": {"x-request-id": REQUEST_ID, **headers},
            **_answer_content(answer, schemas),
        }
    statuses: dict[int, list[Code]] = defaultdict(list)
    for code in sorted(operation.codes):
        statuses[ERROR_CODES[code].status].append(code)
    return found | {str(status): _refusal(status, codes) for status, codes in sorted(statuses.items())}


def _answer_content(answer: Answer, schemas: Schemas) -> dict[str, Any]:
    if answer.shape is None:
        return {}
    content = {answer.media: {"schema": schemas.of(answer.shape, "serialization")}}
    if answer.streams:
        text = "`data: {...}` events, ended by `data: [DONE]` or by one that holds an `Error`."
        content[STREAM] = {"schema": {"description": text}}
    return {"content": content}


def _refusal(status: int, codes: list[Code]) -> dict[str, Any]:
    """One status: which codes it may come with, and what a client is told about trying again."""
    return {
        "description": " ".join(f"`{code}`: {ERROR_CODES[code].meaning}" for code in codes),
        "headers": {
            "x-request-id": REQUEST_ID,
            **{name: {"schema": {"type": "string"}} for name in error_headers(status)},
        },
        "content": {JSON: {"schema": _error_schema(codes, status)}},
    }


def _error_schema(codes: Iterable[Code], status: int | None = None) -> dict[str, Any]:
    statuses = {ERROR_CODES[code].status for code in codes} if status is None else {status}
    fields = {
        "message": {"type": "string"},
        "type": {"enum": sorted({error_type(one) for one in statuses})},
        "param": {"type": ["string", "null"]},
        "code": {"enum": sorted(codes)},
    }
    error = {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"error": error},
        "required": ["error"],
        "additionalProperties": False,
    }
