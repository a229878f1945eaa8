"""The syntax of names of adapters, saved compositions, aliases and versions.

Names appear in listings, logs, headers and vLLM's `lora_name`, so only plain ASCII is accepted. A wrong name
is refused and never changed. The registry checks whether a name is taken.
"""

import difflib
import re
from collections.abc import Iterable

from lora_compose.adapters.errors import Code, InvalidRequest

MAX_NAME_LENGTH = 128
MIN_FINGERPRINT_DIGITS = 6
"""The fewest first digits of a base's fingerprint that select the base."""

_REST = rf"([A-Za-z0-9_-]|\.(?!\.)){{0,{MAX_NAME_LENGTH - 1}}}"
_VERSION = "[1-9][0-9]{0,8}"
NAME_PATTERN = f"^[A-Za-z0-9]{_REST}$"
ALIAS_PATTERN = f"^[A-Za-z]{_REST}$"
REFERENCE_PATTERN = f"^[A-Za-z0-9]{_REST}(@({_VERSION}|[A-Za-z]{_REST}))?$"
"""The pattern of `name`, `name@2` and `name@alias`. The OpenAPI document shows these patterns unchanged."""

_is_name = re.compile(NAME_PATTERN, re.ASCII).fullmatch
_is_alias = re.compile(ALIAS_PATTERN, re.ASCII).fullmatch
_is_version = re.compile(_VERSION, re.ASCII).fullmatch


def check_name(text: object, param: str | None = "name") -> str:
    """Return `text` if it can name an adapter or saved composition. Raises InvalidRequest("invalid_name")."""
    if isinstance(text, str) and _is_name(text):
        return text
    raise InvalidRequest(
        Code.INVALID_NAME,
        f"{_shown(text)} is not a valid name. A name has 1 to {MAX_NAME_LENGTH} letters, digits, '.', '_' or "
        "'-', begins with a letter or digit, and does not contain '..'.",
        param,
    )


def check_alias(text: object, param: str | None = "alias") -> str:
    """Return `text` if it can be an alias. It begins with a letter, so it is never a version number."""
    if isinstance(text, str) and _is_alias(text):
        return text
    raise InvalidRequest(
        Code.INVALID_NAME,
        f"{_shown(text)} is not a valid alias. An alias has 1 to {MAX_NAME_LENGTH} letters, digits, '.', '_' "
        "or '-', begins with a letter, and does not contain '..'.",
        param,
    )


def is_version(ref: str) -> bool:
    """True if `ref` is a version number (1 to 999999999, without leading zeros) and not an alias."""
    return _is_version(ref) is not None


def check_ref(text: object, param: str | None = "name") -> str:
    """Return `text` if it may follow '@': a version number or an alias."""
    if isinstance(text, str) and is_version(text):
        return text
    return check_alias(text, param)


def _shown(text: object) -> str:
    """`text` for a message. It is quoted, escaped and shortened, so that a name cannot forge a log line."""
    if not isinstance(text, str):
        return f"A value of type {type(text).__name__}"
    return ascii(text) if len(text) <= MAX_NAME_LENGTH else f"{text[:32]!a}… ({len(text)} characters)"


def suggestion(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the most similar known name, or an empty text."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f" Did you mean {near[0]!r}?" if near else ""
