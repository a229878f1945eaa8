"""Lineage: a JSON object in which a client describes how an adapter was made. It is stored unchanged."""

import json
from typing import Any, Final

from lora_compose.adapters.errors import Code, InvalidRequest
from lora_compose.adapters.strict_json import parse_object

MAX_LINEAGE_BYTES: Final = 16 * 1024
MAX_DEPTH: Final = 8


def check_lineage(value: object, param: str | None = "lineage") -> dict[str, Any]:
    """Return `value`, a JSON object or its text, as a dict. Raises InvalidRequest("invalid_lineage")."""
    try:
        text = value if isinstance(value, str) else json.dumps(value, allow_nan=False)
        if len(text.encode()) > MAX_LINEAGE_BYTES:
            raise ValueError(f"it has more than {MAX_LINEAGE_BYTES} bytes")
        return parse_object(text.encode(), MAX_DEPTH)
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidRequest(Code.INVALID_LINEAGE, f"lineage is not valid: {error}.", param) from error
