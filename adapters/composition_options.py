"""Whether a method's options are well-formed and go with the method, and how they are written.

Every form of a request (text, our JSON fields, LoRAX's) ends here, so each rule stands once.
"""

from collections.abc import Mapping
from dataclasses import fields

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from adapters.errors import InvalidRequest
from adapters.method_options import (
    ELECTS_SIGN,
    MAX_RANK,
    MAX_SEED,
    METHOD_NAMES,
    NEEDS_DENSITY,
    SEEDED,
    SPELLINGS,
    TAKES_RANK,
    Density,
    MajoritySignMethod,
    MethodOptions,
    Rank,
    Seed,
)
from adapters.validation import ANY, Fault, Faults, refusal, unknown_field

_TAKEN_BY: dict[str, frozenset[str]] = {
    "rank": TAKES_RANK,
    "density": NEEDS_DENSITY,
    "seed": SEEDED,
    "majority_sign_method": ELECTS_SIGN,
}
OPTION_NAMES = tuple(sorted(_TAKEN_BY))
OPTION_FAULTS: Faults = {
    ("rank", ANY): Fault("invalid_rank", f"The rank must be a whole number from 1 to {MAX_RANK}."),
    ("density", ANY): Fault("invalid_density", "The density must be above 0 and at most 1."),
    ("seed", ANY): Fault("invalid_seed", f"The seed must be a whole number from 0 to {MAX_SEED}."),
    ("majority_sign_method", ANY): Fault(
        "invalid_majority_sign_method", "The majority_sign_method must be 'total' or 'frequency'."
    ),
}


@with_config(ConfigDict(strict=True, allow_inf_nan=False))
class _Given(TypedDict, total=False):
    rank: Rank
    density: Density
    seed: Seed
    majority_sign_method: MajoritySignMethod


_OPTIONS = TypeAdapter(_Given)


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
    try:
        return MethodOptions(**_OPTIONS.validate_python(said))
    except ValidationError as error:
        raise refusal(error, OPTION_FAULTS, prefix) from error


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
