"""Converts pydantic's ValidationError to an InvalidRequest with one of our codes.

Each model has a table of faults by field and by pydantic's kind of error. If one of our check functions runs
as a validator and raises an InvalidRequest, its code and message are kept. pydantic's messages are not shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from lora_compose.adapters.errors import Code, InvalidRequest

ANY = "*"
"""All kinds of error that have no row of their own for a field."""
RAISED_BY_VALIDATOR = "value_error"
"""The kind of an InvalidRequest that a validator raises. Only the `param` of its row is used."""


@dataclass(frozen=True)
class Fault:
    """The code and message of an error, and its `param` if that is not the path of the field.

    `{param}` in the message is replaced by the path."""

    code: Code
    message: str
    param: str | None = None


Faults = Mapping[tuple[str, str], Fault]
"""Faults by (field, kind). A field is a path with `[]` for any index, such as `adapters[].weight`."""

OTHER = Fault(Code.INVALID_REQUEST, "{param} is missing or its value is not allowed.")
_EVERYWHERE: Faults = {
    (ANY, "string_type"): Fault(Code.INVALID_REQUEST, "{param} must be a string."),
    (ANY, "bool_type"): Fault(Code.INVALID_REQUEST, "{param} must be true or false."),
}


def with_prefix(prefix: str, faults: Faults) -> Faults:
    """`faults` with `prefix` before each field."""
    return {(prefix + field, kind): fault for (field, kind), fault in faults.items()}


def unknown_field(name: str, prefix: str = "") -> InvalidRequest:
    """The error for an unknown field. Its name may be any text, so it is escaped and shortened."""
    shown = ascii(name[:64])
    return InvalidRequest(Code.UNKNOWN_FIELD, f"The field {shown} is unknown here.", prefix + shown[1:-1])


def refusal(error: ValidationError, faults: Faults, prefix: str = "") -> InvalidRequest:
    """The first error in `error`, with `prefix` before its param.

    If a validator raised an InvalidRequest, its param is relative to the field that it validates."""
    first = error.errors(include_url=False)[0]
    path, field = "", ""
    for part in first["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
        field += "[]" if isinstance(part, int) else f".{part}"
    path, field = path.removeprefix("."), field.removeprefix(".")
    row = faults.get((field, first["type"]))
    refused = first.get("ctx", {}).get("error")
    if isinstance(refused, InvalidRequest):
        inside = path if refused.param is None else f"{path}.{refused.param}".removeprefix(".")
        return InvalidRequest(refused.code, refused.message, (row and row.param) or prefix + inside)
    fault = row or faults.get((field, ANY)) or _EVERYWHERE.get((ANY, first["type"]), OTHER)
    param = fault.param or prefix + path
    return InvalidRequest(fault.code, fault.message.replace("{param}", param), param)
