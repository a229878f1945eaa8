"""Refuses fields of other servers that vLLM does not have, and that would change the answer."""

from collections.abc import Collection, Mapping
from typing import Any

from lora_compose.adapters.errors import Code, InvalidRequest

Harmless = Mapping[str, Collection[object]]
"""The values that change nothing, for each field that is not supported. None is always among them."""


def refuse_unsupported(fields: Mapping[str, Any], harmless: Harmless, prefix: str = "") -> None:
    """Raises InvalidRequest("invalid_request") for the first field that has another value."""
    for name, values in harmless.items():
        value = fields.get(name)
        if value is not None and value not in values:
            raise unsupported(prefix + name)


def unsupported(param: str, instead: str = "Leave it out.") -> InvalidRequest:
    """The error for a field that this server does not support."""
    return InvalidRequest(Code.INVALID_REQUEST, f"This server does not support {param}. {instead}", param)
