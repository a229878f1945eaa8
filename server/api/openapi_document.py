"""Makes the OpenAPI document from the routes, their types, the access rules and the error codes.

`Schemas` holds the JSON schemas of all types that the operations use, ours and vLLM's.
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
from lora_compose.server.api.operation import FORM, JSON, Answer, ErrorShape, Operation
from lora_compose.server.api.operations import OPERATIONS
from lora_compose.server.compositions.from_request import CompositionFields
from lora_compose.server.engine.frontend.api_types import VLLM_TYPES
from lora_compose.server.errors import error_headers, error_type
from lora_compose.server.http.anthropic_errors import anthropic_type
from lora_compose.server.paths import PROBES
from lora_compose.server.tenants.access import roles_of
from lora_compose.server.translations.error_shapes import tgi_error_type

TEMPLATE = "#/components/schemas/{model}"


class Schemas:
    """The JSON schemas of the operations' types. References point into `components`."""

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
        """The schema of a type: a reference, or `shape` itself if it is a schema already."""
        return shape if isinstance(shape, dict) else self._by_shape[shape, mode]

    def body(self, operation: Operation) -> dict[str, Any]:
        """The schema of the JSON body. On vLLM's routes it also has the fields of a composition."""
        schema = self.of(operation.body, "validation")
        if not isinstance(operation.body, str):
            return schema
        return {"allOf": [schema, self.of(CompositionFields, "validation")]}


def _typed(shapes: Iterable[Any], mode: JsonSchemaMode) -> list[tuple[Any, JsonSchemaMode, TypeAdapter[Any]]]:
    """Each type once, with its adapter. vLLM's types are looked up by the path of their route."""
    types: dict[Any, Any] = {shape: shape for shape in shapes if isinstance(shape, str | type)}
    types |= {path: VLLM_TYPES[path][mode == "serialization"] for path in types if isinstance(path, str)}
    return [(shape, mode, TypeAdapter(kind)) for shape, kind in types.items()]


ABOUT = (
    "One base model and many LoRA adapters. On each route that generates, `model` or one of the fields of "
    "`CompositionFields` selects the adapters, their weights, and whether they are stacked or merged. GET "
    "routes also support HEAD. Other methods are refused with 405 `method_not_allowed`, other paths with 404."
)
PATTERNS = {"name": NAME_PATTERN, "alias": ALIAS_PATTERN, "reference": REFERENCE_PATTERN}
"""The patterns of path parameters."""
REQUEST_ID = {
    "description": "The `x-request-id` of the request, or a new one if the request has none.",
    "required": True,
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
}


@dataclass(frozen=True)
class DocumentedRoute:
    """One method of a route, with the docstring of its function."""

    method: str
    path: str
    doc: str


def documented_routes(routes: Iterable[BaseRoute]) -> tuple[DocumentedRoute, ...]:
    """Every method of every route, except HEAD, which every GET route has."""
    return tuple(
        DocumentedRoute(method, route.path_format, _doc(route))
        for route in routes
        if isinstance(route, Route)
        for method in sorted((route.methods or set()) - {"HEAD"})
    )


@lru_cache(maxsize=1)
def document(routes: Sequence[DocumentedRoute]) -> dict[str, Any]:
    """The document in OpenAPI 3.1. The first call takes a second, because vLLM has many types."""
    schemas = Schemas(OPERATIONS[route.method, route.path] for route in routes)
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for route in routes:
        operation = OPERATIONS[route.method, route.path]
        paths[route.path][route.method.lower()] = _operation(route, operation, schemas)
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
    """The first paragraph of the function's docstring; empty for an ASGI endpoint."""
    text = route.endpoint.__doc__ if hasattr(route.endpoint, "__code__") else None
    return " ".join((text or "").partition("\n\n")[0].split())


def summary(route: DocumentedRoute) -> str:
    """The docstring without the method and path at its beginning."""
    first_paragraph = re.sub(r"^`[^`]*`:? ?", "", route.doc)
    text = first_paragraph or OPERATIONS[route.method, route.path].summary
    return text if text[1:2].isupper() else text[:1].upper() + text[1:]


def roles(route: DocumentedRoute) -> list[str]:
    """The roles that may use the route. A key for the whole server may use every route."""
    return ["everybody"] if route.path in PROBES else sorted(roles_of(route.method, route.path))


def _operation(route: DocumentedRoute, operation: Operation, schemas: Schemas) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{route.method.lower()}{route.path}").strip("_"),
        "summary": summary(route),
        "tags": [route.path.removeprefix("/v1").split("/")[1]],
        "x-roles": roles(route),
        "responses": _responses(operation, schemas),
    }
    if parameters := _parameters(route, operation):
        described["parameters"] = parameters
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": _content(operation, schemas)}
    if route.path in PROBES:
        described["security"] = []
    return described


def _parameters(route: DocumentedRoute, operation: Operation) -> list[dict[str, Any]]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": _path_schema(name)}
        for name in re.findall(r"\{(\w+)\}", route.path)
    ]
    if operation.flag:
        parameters.append({
            "name": operation.flag,
            "in": "query",
            "schema": {"type": "boolean", "default": False},
        })
    return parameters


def _path_schema(name: str) -> dict[str, Any]:
    return (
        {"type": "string", "pattern": PATTERNS[name]}
        if name in PATTERNS
        else {"type": "string", "minLength": 1}
    )


def _content(operation: Operation, schemas: Schemas) -> dict[str, Any]:
    examples = {f"example{index}": {"value": value} for index, value in enumerate(operation.examples, 1)}
    content: dict[str, Any] = {JSON: {"schema": schemas.body(operation), "examples": examples}}
    if operation.upload is not None:
        content[FORM] = {"schema": schemas.of(operation.upload, "validation")}
    return content


def _responses(operation: Operation, schemas: Schemas) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, answer in operation.answers.items():
        headers = {
            name: {"description": text, "schema": {"type": "string"}}
            for name, text in operation.answer_headers.items()
        }
        responses[str(status)] = {
            "description": "Success, without a body." if answer.shape is None else "Success.",
            "headers": {"x-request-id": REQUEST_ID, **headers},
            **_answer_content(answer, schemas),
        }
    statuses: dict[int, list[Code]] = defaultdict(list)
    for code in sorted(operation.codes):
        statuses[ERROR_CODES[code].status].append(code)
    return responses | {
        str(status): _refusal(status, codes, operation.error_shape)
        for status, codes in sorted(statuses.items())
    }


def _answer_content(answer: Answer, schemas: Schemas) -> dict[str, Any]:
    if answer.shape is None:
        return {}
    content = {answer.media: {"schema": schemas.of(answer.shape, "serialization")}}
    if answer.streams:
        content[answer.stream_media] = {"schema": {"description": answer.stream_form}}
    return {"content": content}


def _refusal(status: int, codes: list[Code], shape: ErrorShape) -> dict[str, Any]:
    """The response of one error status: its codes, and the headers about retrying."""
    return {
        "description": " ".join(f"`{code}`: {ERROR_CODES[code].meaning}" for code in codes),
        "headers": {
            "x-request-id": REQUEST_ID,
            **{name: {"schema": {"type": "string"}} for name in error_headers(status)},
        },
        "content": {JSON: {"schema": _error_schema_of(shape, codes, status)}},
    }


def _error_schema_of(shape: ErrorShape, codes: list[Code], status: int) -> dict[str, Any]:
    """The schema of an error in the shape of OpenAI or of another server."""
    if shape in ("openai", "anthropic"):
        schema = _error_schema(codes, status)
        return _anthropic_error_schema(schema, status) if shape == "anthropic" else schema
    kind = {"error_type": {"enum": [tgi_error_type(status)]}} if shape == "tgi" else {}
    fields = {
        "error": {"type": "string"},
        **kind,
        "code": {"enum": sorted(codes)},
        "param": {"type": ["string", "null"]},
    }
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def _anthropic_error_schema(schema: dict[str, Any], status: int) -> dict[str, Any]:
    """The schema of `lora_compose.server.http.anthropic_errors.anthropic_body`."""
    schema["properties"]["error"]["properties"]["type"] = {"const": anthropic_type(status)}
    schema["properties"]["type"] = {"const": "error"}
    schema["required"] = ["type", "error"]
    return schema


def _error_schema(codes: Iterable[Code], status: int | None = None) -> dict[str, Any]:
    statuses = {ERROR_CODES[code].status for code in codes} if status is None else {status}
    fields = {
        "message": {"type": "string"},
        "type": {"enum": sorted({error_type(number) for number in statuses})},
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
