"""Parses one JSON object from bytes nobody vouches for.

Python's own parser lets pass what two readers may understand differently (a key given twice, NaN, half a
surrogate pair) and recurses as deep as the text says. Here each of these is an error, found in linear time.
"""

import json
import re
from typing import Any, NoReturn

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)


class NotStrictJson(ValueError):
    """The bytes are not one well-formed JSON object; the text says what is wrong and where."""


def parse_object(data: bytes, max_depth: int) -> dict[str, Any]:
    """The JSON object in `data`, nested at most `max_depth` deep. Raises NotStrictJson."""
    if data.startswith(b"\xef\xbb\xbf"):
        raise NotStrictJson("it begins with a byte order mark; save it as UTF-8 without one")
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
        raise NotStrictJson("it holds text that is not valid UTF-8") from error
    except NotStrictJson:
        raise
    except ValueError as error:
        raise NotStrictJson(f"it is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise NotStrictJson(f"it must hold a JSON object, not {_kind(value)}")
    return value


def _depth(data: bytes) -> int:
    """How deep brackets are nested, those inside strings left out."""
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
            raise NotStrictJson(f"the key {key[:100]!r} is given twice")
        result[key] = value
    return result


def _refuse_constant(text: str) -> NoReturn:
    raise NotStrictJson(f"{text} is not a JSON number")


def _whole(text: str) -> int:
    # -0 is an integer to Python and a float to Rust's parser.
    if text == "-0":
        raise NotStrictJson("-0 is not a whole number to every reader")
    return int(text)


def _kind(value: object) -> str:
    return {list: "an array", str: "a string", type(None): "null"}.get(type(value), "a number or a boolean")
