"""Whether a method's options are well-formed and go with the method, and how they are written.

Every form of a request (text, our JSON fields, LoRAX's) ends here, so each rule stands once.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Literal

from adapters.errors import InvalidRequest
from adapters.method_options import (
    ELECTS_SIGN,
    METHOD_NAMES,
    NEEDS_DENSITY,
    SEEDED,
    SPELLINGS,
    TAKES_RANK,
    MajoritySignMethod,
    MethodOptions,
)

MAX_SEED = 2**31 - 1
MAX_RANK = 2**31 - 1

_TAKEN_BY: dict[str, frozenset[str]] = {
    "rank": TAKES_RANK,
    "density": NEEDS_DENSITY,
    "seed": SEEDED,
    "majority_sign_method": ELECTS_SIGN,
}
OPTION_NAMES = tuple(sorted(_TAKEN_BY))


def check_method(value: object, param: str | None = "composition.method") -> str:
    """`value` as one of METHOD_NAMES, other spellings turned into it, or InvalidRequest("unknown_method")."""
    if isinstance(value, str):
        method = SPELLINGS.get(value, value)
        if method in METHOD_NAMES:
            return method
    raise InvalidRequest("unknown_method", f"The method must be one of {', '.join(METHOD_NAMES)}.", param)


def read_options(method: str, given: Mapping[str, object], prefix: str = "composition.") -> MethodOptions:
    """The options a request gave, checked against `method`; None stands for "not given".

    `prefix` goes before an option's name in the error's `param`."""
    said = {name: value for name, value in given.items() if value is not None}
    for name in said:
        if name not in _TAKEN_BY:
            raise unknown_field(name, prefix)
        if method not in _TAKEN_BY[name]:
            raise InvalidRequest(f"invalid_{name}", f"The method {method!r} takes no {name}.", prefix + name)
    if method in NEEDS_DENSITY and "density" not in said:
        raise InvalidRequest("missing_density", f"The method {method!r} needs a density.", prefix + "density")
    rank, density = said.get("rank"), said.get("density")
    return MethodOptions(
        rank=None if rank is None else _whole("rank", rank, (1, MAX_RANK), prefix),
        density=None if density is None else _density(density, prefix),
        seed=_whole("seed", said.get("seed", 0), (0, MAX_SEED), prefix),
        majority_sign_method=_sign_method(said.get("majority_sign_method", "total"), prefix),
    )


def unknown_field(name: str, prefix: str) -> InvalidRequest:
    """The refusal of a field nobody knows. Its name is escaped and cut: it may be any text at all."""
    shown = ascii(name[:64])
    return InvalidRequest("unknown_field", f"There is no field {shown} here.", prefix + shown[1:-1])


def check_options(method: str, options: MethodOptions) -> None:
    """Raises InvalidRequest unless `options` could have been given for `method`."""
    if check_method(method) != method:
        raise InvalidRequest(
            "unknown_method", f"{method!r} is only a spelling on input.", "composition.method"
        )
    read_options(method, _said(options))


def shown_options(options: MethodOptions) -> list[str]:
    """`name=value` for each option that is not at its default, in alphabetical order."""
    said = _said(options)
    return [f"{name}={_shown(said[name])}" for name in OPTION_NAMES if name in said]


def number_text(value: float) -> str:
    """The shortest decimal text that reads back as the same double: `0.5`, `2`, `1e-05`."""
    return repr(value).removesuffix(".0")


def _said(options: MethodOptions) -> dict[str, object]:
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    return {
        field.name: values[field.name] for field in fields(options) if values[field.name] != field.default
    }


def _shown(value: object) -> str:
    return number_text(value) if isinstance(value, float) else str(value)


def _whole(name: str, value: object, bounds: tuple[int, int], prefix: str) -> int:
    low, high = bounds
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidRequest(
            f"invalid_{name}", f"The {name} must be a whole number from {low} to {high}.", prefix + name
        )
    return value


def _density(value: object, prefix: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise InvalidRequest(
            "invalid_density", "The density must be above 0 and at most 1.", prefix + "density"
        )
    return float(value)


def _sign_method(value: object, prefix: str) -> MajoritySignMethod:
    allowed: tuple[Literal["total"], Literal["frequency"]] = ("total", "frequency")
    for name in allowed:
        if value == name:
            return name
    raise InvalidRequest(
        "invalid_majority_sign_method",
        "The majority_sign_method must be 'total' or 'frequency'.",
        prefix + "majority_sign_method",
    )
