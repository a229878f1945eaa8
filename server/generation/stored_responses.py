"""The owners of stored responses: only the key that made a response may read it.

vLLM stores responses if VLLM_ENABLE_RESPONSES_API_STORE is 1. The id of a response holds a tag that only this
process can compute for a key, so nothing has to be remembered. vLLM's store has the same lifetime.
"""

import hashlib
import hmac
import secrets
from typing import Any

from lora_compose.adapters.errors import Code, NotFound

_SECRET = secrets.token_bytes(32)
_PREFIX = "resp_"


def own_response(body: dict[str, Any], key_id: str) -> dict[str, Any]:
    """`body` with a new `request_id`, which becomes the response's id.

    Raises NotFound("response_not_found") if `previous_response_id` is the response of another key."""
    previous = body.get("previous_response_id")
    if isinstance(previous, str):
        require_owner(previous, key_id, "previous_response_id")
    name = secrets.token_hex(16)
    return body | {"request_id": f"{_PREFIX}{name}{_tag(name, key_id)}"}


def require_owner(response_id: str, key_id: str, param: str = "response_id") -> None:
    """Raises NotFound("response_not_found") unless the key made this response, in this process."""
    name = response_id.removeprefix(_PREFIX)[:32]
    own = f"{_PREFIX}{name}{_tag(name, key_id)}"
    if not hmac.compare_digest(response_id.encode(errors="replace"), own.encode(errors="replace")):
        raise response_not_found(response_id, param)


def response_not_found(response_id: str, param: str = "response_id") -> NotFound:
    """The error for a response that is not stored, or that another key made."""
    return NotFound(Code.RESPONSE_NOT_FOUND, f"The response {response_id!r:.200} is not stored here.", param)


def _tag(name: str, key_id: str) -> str:
    return hmac.digest(_SECRET, f"{name}\0{key_id}".encode(errors="replace"), hashlib.sha256).hex()[:32]
