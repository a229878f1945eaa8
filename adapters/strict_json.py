"""Parses one JSON object from untrusted bytes.

Python's own parser accepts text that two parsers may read differently: a duplicate key, NaN, half a surrogate
pair. It also recurses as deep as the text is nested. Here each of these is an error, found in linear time.
"""

import json
import re
from typing import Any, NoReturn

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)


class NotStrictJson(ValueError):
    """The bytes are not one well-formed JSON object. The error text has the reason and the position."""


def parse_object(data: bytes, max_depth: int) -> dict[str, Any]:
    """Parse `data`, which may be nested at most `max_depth` deep. Raises NotStrictJson."""
    if data.startswith(b"\xef\xbb\xbf"):
        raise NotStrictJson("it begins with a byte order mark. Save it as UTF-8 without one")
    if _depth(data) > max_depth:
        raise NotStrictJson(f"it is nested deeper than {max_depth} levels")
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_without_duplicates,
            parse_constant=_refuse_constant,
            parse_int=_whole,
        )
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeError as error:
        raise NotStrictJson("it contains text that is not valid UTF-8") from error
    except NotStrictJson:
        raise
    except ValueError as error:
        raise NotStrictJson(f"it is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise NotStrictJson(f"it must be a JSON object, not {_kind(value)}")
    return value


def _depth(data: bytes) -> int:
    """How deep brackets are nested. Brackets inside strings are ignored."""
    depth = deepest = 0
    for byte in _STRING.sub(b"", data):
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise NotStrictJson(f"it contains the key {key[:100]!r} twice")
        result[key] = value
    return result


def _refuse_constant(text: str) -> NoReturn:
    raise NotStrictJson(f"it contains {text}, which is not a JSON number")


def _whole(text: str) -> int:
    # Python parses -0 as an integer, and Rust's parser as a float.
    if text == "-0":
        raise NotStrictJson("it contains -0, which some parsers do not read as a whole number")
    return int(text)


def _kind(value: object) -> str:
    return {list: "an array", str: "a string", type(None): "null"}.get(type(value), "a number or a boolean")
