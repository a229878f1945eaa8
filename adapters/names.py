"""What an adapter, a saved composition, an alias and a version may be called.

Names go into listings, logs, headers and vLLM's `lora_name`: only plain ASCII passes, nothing is repaired.
Whether a name is taken is the registry's business.
"""

import re

from adapters.errors import InvalidRequest

MAX_NAME_LENGTH = 128

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,127}", re.ASCII)
_VERSION = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)


def check_name(text: object, param: str | None = "name") -> str:
    """`text` as the name of an adapter or saved composition, or InvalidRequest("invalid_name")."""
    if isinstance(text, str) and _NAME.fullmatch(text) and ".." not in text:
        return text
    raise InvalidRequest(
        "invalid_name",
        f"{_shown(text)} is not a name: use 1 to {MAX_NAME_LENGTH} letters, digits, '.', '_' or '-', "
        "beginning with a letter or digit and without '..'.",
        param,
    )


def check_alias(text: object, param: str | None = "alias") -> str:
    """`text` as an alias, a name that begins with a letter so that no alias reads as a version number."""
    if isinstance(text, str) and _ALIAS.fullmatch(text) and ".." not in text:
        return text
    raise InvalidRequest(
        "invalid_name",
        f"{_shown(text)} is not an alias: use 1 to {MAX_NAME_LENGTH} letters, digits, '.', '_' or '-', "
        "beginning with a letter and without '..'.",
        param,
    )


def is_version(ref: str) -> bool:
    """Whether `ref` is a version number, 1 to 999999999 without leading zeros, rather than an alias."""
    return _VERSION.fullmatch(ref) is not None


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
