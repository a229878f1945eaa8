"""What an adapter, a saved composition, an alias and a version may be called.

Names go into listings, logs, headers and vLLM's `lora_name`: only plain ASCII passes, nothing is repaired.
Whether a name is taken is the registry's business.
"""

import re

from lora_compose.adapters.errors import Code, InvalidRequest

MAX_NAME_LENGTH = 128

_REST = rf"([A-Za-z0-9_-]|\.(?!\.)){{0,{MAX_NAME_LENGTH - 1}}}"
_VERSION = "[1-9][0-9]{0,8}"
NAME_PATTERN = f"^[A-Za-z0-9]{_REST}$"
ALIAS_PATTERN = f"^[A-Za-z]{_REST}$"
REFERENCE_PATTERN = f"^[A-Za-z0-9]{_REST}(@({_VERSION}|[A-Za-z]{_REST}))?$"
"""Of `name`, `name@2` and `name@alias`. The OpenAPI document shows these patterns as they stand here."""

_is_name = re.compile(NAME_PATTERN, re.ASCII).fullmatch
_is_alias = re.compile(ALIAS_PATTERN, re.ASCII).fullmatch
_is_version = re.compile(_VERSION, re.ASCII).fullmatch


def check_name(text: object, param: str | None = "name") -> str:
    """`text` as the name of an adapter or saved composition, or InvalidRequest("invalid_name")."""
    if isinstance(text, str) and _is_name(text):
        return text
    raise InvalidRequest(
        Code.INVALID_NAME,
        f"{_shown(text)} is not a name: use 1 to {MAX_NAME_LENGTH} letters, digits, '.', '_' or '-', "
        "beginning with a letter or digit and without '..'.",
        param,
    )


def check_alias(text: object, param: str | None = "alias") -> str:
    """`text` as an alias, a name that begins with a letter so that no alias reads as a version number."""
    if isinstance(text, str) and _is_alias(text):
        return text
    raise InvalidRequest(
        Code.INVALID_NAME,
        f"{_shown(text)} is not an alias: use 1 to {MAX_NAME_LENGTH} letters, digits, '.', '_' or '-', "
        "beginning with a letter and without '..'.",
        param,
    )


def is_version(ref: str) -> bool:
    """Whether `ref` is a version number, 1 to 999999999 without leading zeros, rather than an alias."""
    return _is_version(ref) is not None


def check_ref(text: object, param: str | None = "name") -> str:
    """`text` as what may follow '@': a version number or an alias."""
    if isinstance(text, str) and is_version(text):
        return text
    return check_alias(text, param)


def _shown(text: object) -> str:
    """`text` for a message: quoted, escaped and cut, so that no name can forge a log line."""
    if not isinstance(text, str):
        return f"A JSON {type(text).__name__}"
    return ascii(text) if len(text) <= MAX_NAME_LENGTH else f"{text[:32]!a}… ({len(text)} characters)"
