"""Reads a JSON request body of bounded size, and parses it with a strict model.

A model is the only parser of its body and the source of its schema in the OpenAPI document. A refusal is an
InvalidRequest from the model's table `FAULTS`; see `lora_compose.adapters.validation`.
"""

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError
from starlette.exceptions import HTTPException
from starlette.requests import Request

from lora_compose.adapters.composition.grammar import parse_reference
from lora_compose.adapters.errors import Code, InvalidRequest
from lora_compose.adapters.names import (
    ALIAS_PATTERN,
    NAME_PATTERN,
    REFERENCE_PATTERN,
    check_alias,
    check_name,
)
from lora_compose.adapters.validation import Fault, Faults, refusal, unknown_field

MAX_JSON_BYTES = 1024 * 1024
"""The largest body of an administration route. Generating routes use `longest_body`."""
FORM_TYPE = "application/x-www-form-urlencoded"
BYTES_A_TOKEN = 64
"""The most bytes of JSON per token of the context, including JSON escapes and field names."""
MIN_BODY_LIMIT, IMAGE_BODY_LIMIT = 2 << 20, 32 << 20


def longest_body(max_model_len: int, *, takes_pictures: bool) -> int:
    """The largest body of a generating request in bytes. Parsing a longer one would delay other requests."""
    return IMAGE_BODY_LIMIT if takes_pictures else max(MIN_BODY_LIMIT, max_model_len * BYTES_A_TOKEN)


async def read_bytes(request: Request, limit: int = MAX_JSON_BYTES) -> bytes:
    """The body. Raises HTTPException 413 at the first byte over `limit`."""
    declared = request.headers.get("content-length", "0")
    if not declared.isdigit() or int(declared) > limit:
        raise HTTPException(413, f"The request body is larger than {limit} bytes.")
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise HTTPException(413, f"The request body is larger than {limit} bytes.")
        chunks.append(chunk)
    return b"".join(chunks)


async def read_object(
    request: Request, limit: int = MAX_JSON_BYTES, *, takes_forms: bool = False
) -> dict[str, Any]:
    """The body as a JSON object. Raises HTTPException 413, 415, InvalidRequest("invalid_json").

    With `takes_forms` it may have the content type of `curl -d`. A browser sends that type from a page of
    another origin without asking the server first, so a request with the header `Origin` may not have it."""
    content_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    is_form = takes_forms and content_type == FORM_TYPE and "origin" not in request.headers
    if (
        not (content_type == "application/json" or is_form)
        or request.headers.get("content-encoding", "identity") != "identity"
    ):
        raise HTTPException(415, "Send the body as application/json, without a content encoding.")
    return parse_object(await read_bytes(request, limit))


@contextmanager
def _without_collection() -> Iterator[None]:
    """Parsing makes objects without cycles. Meanwhile the collector would look at each of them many times."""
    is_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if is_on:
            gc.enable()


def parse_object(body: bytes) -> dict[str, Any]:
    """`body` as a JSON object, or InvalidRequest("invalid_json").

    300,000 short lists in 1.5 MB take 23 ms. With the garbage collector on they took 230 ms, in which no
    other request is answered."""
    try:
        with _without_collection():
            parsed = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(Code.INVALID_JSON, "The request body is not valid JSON.") from error
    if not isinstance(parsed, dict):
        raise InvalidRequest(Code.INVALID_JSON, "The request body must be a JSON object.")
    return parsed


def read_flag(request: Request, name: str) -> bool:
    """The value of the route's only query parameter: true for `?name` and `?name=true`, else false."""
    parameters = request.query_params.multi_items()
    for other, _ in parameters:
        if other != name:
            raise unknown_field(other)
    values = {value for _, value in parameters}
    if not values <= {"", "true"} and values != {"false"}:
        raise InvalidRequest(Code.INVALID_REQUEST, f"{name} must be true or false.", name)
    return bool(values) and values != {"false"}


class Body(BaseModel):
    """A JSON object. Fields that the model does not have are refused before the values are checked."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
    FAULTS: ClassVar[Faults] = {}

    @classmethod
    def read(cls, body: object) -> Self:
        """The parsed JSON `body` as this model, or InvalidRequest."""
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            raise refusal(error, cls.FAULTS) from error

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The schema without defaults of None, because None only means that the field is absent."""
        schema = handler(core_schema)
        for field in handler.resolve_ref_schema(schema)["properties"].values():
            if field.get("default", ...) is None:
                del field["default"]
        return schema

    @model_validator(mode="before")
    @classmethod
    def _has_no_other_field(cls, body: object) -> object:
        """Stop at the first unknown field. pydantic would collect all of them, perhaps millions."""
        if isinstance(body, dict) and cls.model_config["extra"] == "forbid":
            for field in body:
                if field not in cls.model_fields:
                    raise unknown_field(field)
        return body


def text_of(value: object) -> str:
    """Accept any string. pydantic's `str` refuses half of a surrogate pair before our own checks run."""
    if isinstance(value, str):
        return value
    raise PydanticKnownError("string_type")


def matching(pattern: str) -> WithJsonSchema:
    """The schema of a string that our own validator checks against `pattern`."""
    return WithJsonSchema({"type": "string", "pattern": pattern})


TEXT_SCHEMA = WithJsonSchema({"type": "string"})
Text = Annotated[str, PlainValidator(text_of), TEXT_SCHEMA]
Name = Annotated[str, PlainValidator(partial(check_name, param=None)), matching(NAME_PATTERN)]
Alias = Annotated[str, PlainValidator(partial(check_alias, param=None)), matching(ALIAS_PATTERN)]
Reference = Annotated[
    tuple[str, str | None],
    PlainValidator(partial(parse_reference, param=None)),
    matching(REFERENCE_PATTERN),
]
"""`name`, `name@2` or `name@alias`, as (name, ref)."""
MISSING_NAME = Fault(Code.INVALID_NAME, "The name is missing.")
