"""Parses compositions written as text: `"sql@2:0.7+polite"` or `"ties(sql+polite,density=0.3)"`.

    composition = members | method "(" members { "," option "=" value } ")"
    members     = member { "+" member }
    member      = name [ "@" (version | alias) ] [ ":" weight ]

";" means "," and "*" means ":", because some proxies split the field `model` at "," or ":". Spaces are
allowed around "+" and ",". `parse(c.canonical) == c` for every Composition c.
"""

import re

from lora_compose.adapters.composition.composition import (
    MAX_TEXT_LENGTH,
    Composition,
    Member,
    check_method,
    check_weight,
    read_options,
)
from lora_compose.adapters.errors import Code, InvalidRequest
from lora_compose.adapters.names import check_name, check_ref

_SPELLINGS = str.maketrans(";*", ",:")
_CALL = re.compile(r"([A-Za-z_]+)\((.*)\)", re.ASCII)
_DECIMAL = re.compile(r"-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE]-?[0-9]+)?", re.ASCII)
_INTEGER = re.compile(r"-?[0-9]{1,18}", re.ASCII)


def parse(text: str, param: str | None = "model") -> Composition:
    """Parse a composition.

    Raises InvalidRequest: invalid_name, invalid_weight, unknown_method, unknown_field, duplicate_member,
    invalid_<option>, missing_density, and invalid_composition for all other errors."""
    if len(text) > MAX_TEXT_LENGTH:
        raise InvalidRequest(
            Code.INVALID_COMPOSITION,
            f"The text of a composition has at most {MAX_TEXT_LENGTH} characters.",
            param,
        )
    text = text.translate(_SPELLINGS)
    call = _CALL.fullmatch(text)
    if call is None:
        return Composition(_members(text, param))
    method = check_method(call[1], param)
    members, *options = (part.strip(" ") for part in call[2].split(","))
    values = _options(options, param)
    return Composition(_members(members, param), method, read_options(method, values, prefix=""))


def parse_reference(text: object, param: str | None) -> tuple[str, str | None]:
    """(name, ref) of `name` or `name@ref`. ref is None if there is no "@"."""
    if not isinstance(text, str):
        return check_name(text, param), None
    name, at, ref = text.partition("@")
    return check_name(name, param), check_ref(ref, param) if at else None


def _members(text: str, param: str | None) -> tuple[Member, ...]:
    return tuple(_member(part.strip(" "), param) for part in text.split("+"))


def _member(text: str, param: str | None) -> Member:
    if not text:
        raise InvalidRequest(Code.INVALID_COMPOSITION, "The name of an adapter is missing.", param)
    reference, colon, weight = text.partition(":")
    name, ref = parse_reference(reference, param)
    return Member(name, _weight(weight, param) if colon else 1.0, ref)


def _weight(text: str, param: str | None) -> float:
    if _DECIMAL.fullmatch(text) is None:
        raise InvalidRequest(Code.INVALID_WEIGHT, "A weight must be a decimal number such as 0.7.", param)
    return check_weight(float(text), param)


def _options(parts: list[str], param: str | None) -> dict[str, object]:
    values: dict[str, object] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        if not equals or not value or name in values:
            raise InvalidRequest(
                Code.INVALID_COMPOSITION, "Each option must be written once, as name=value.", param
            )
        values[name] = _value(value)
    return values


def _value(text: str) -> object:
    """`text` as a number if it is one, or else `text`. The type is checked later, for each option."""
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) else text
