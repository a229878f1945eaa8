"""What a client says of how an adapter came about: any JSON object, kept as it is and shown to people."""

import json
from typing import Any, Final

from lora_compose.adapters.errors import Code, InvalidRequest
from lora_compose.adapters.strict_json import parse_object

MAX_LINEAGE_BYTES: Final = 16 * 1024
MAX_DEPTH: Final = 8


def check_lineage(value: object, param: str | None = "lineage") -> dict[str, Any]:
    """A JSON object, or the text of one. Raises InvalidRequest("invalid_lineage")."""
    try:
        text = value if isinstance(value, str) else json.dumps(value, allow_nan=False)
        if len(text.encode()) > MAX_LINEAGE_BYTES:
            raise ValueError(f"it is larger than {MAX_LINEAGE_BYTES} bytes")
        return parse_object(text.encode(), MAX_DEPTH)
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidRequest(
            Code.INVALID_LINEAGE, f"lineage must be a JSON object: {error}", param
        ) from error
