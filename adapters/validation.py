"""What pydantic refuses, as an InvalidRequest with one of our codes.

A model comes with a table of faults by field and by pydantic's kind of error. A check of ours that runs as a
validator raises an InvalidRequest, whose code and sentence stay. pydantic's sentences are never shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from lora_compose.adapters.errors import Code, InvalidRequest

ANY = "*"
"""Every kind of error that a field's table has no row of its own for."""
OURS = "value_error"
"""The kind of an InvalidRequest that a validator raises. Its row is read for the `param` only."""


@dataclass(frozen=True)
class Fault:
    """A stable code, a sentence for people, and the `param` where that is not the path of the field.

    `{param}` in the sentence stands for the path."""

    code: Code
    message: str
    param: str | None = None


Faults = Mapping[tuple[str, str], Fault]
"""By (field, kind). A field is a path with `[]` for any index, as in `adapters[].weight`."""

OTHER = Fault(Code.INVALID_REQUEST, "{param} is missing or has a value that it cannot have.")
_EVERYWHERE: Faults = {
    (ANY, "string_type"): Fault(Code.INVALID_REQUEST, "{param} must be a string."),
    (ANY, "bool_type"): Fault(Code.INVALID_REQUEST, "{param} must be true or false."),
}


def under(prefix: str, faults: Faults) -> Faults:
    """`faults` for fields that stand below `prefix`."""
    return {(prefix + field, kind): fault for (field, kind), fault in faults.items()}


def unknown_field(name: str, prefix: str = "") -> InvalidRequest:
    """The refusal of a field that no model has. Its name may be any text, so it is escaped and cut."""
    shown = ascii(name[:64])
    return InvalidRequest(Code.UNKNOWN_FIELD, f"There is no field {shown} here.", prefix + shown[1:-1])


def refusal(error: ValidationError, faults: Faults, prefix: str = "") -> InvalidRequest:
    """The first fault of `error`. `prefix` goes before the param.

    The param of an InvalidRequest that a validator raised is relative to what it validates."""
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
