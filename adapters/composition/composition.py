"""Whether a method's options are well-formed and go with the method, and how they are written.

Every form of a request (text, our JSON fields, LoRAX's) ends here, so each rule stands once.

A composition: which adapters, how strongly, combined by which method. It touches no disk and no tensor.

A Composition that exists is well-formed, and its members are sorted, so equal requests are equal objects with
one canonical name however they were written. Whether its members exist and fit is checked elsewhere.

The names of the combination methods and the options each one takes, as plain data.

Composition text is parsed where torch is not wanted, and the merge mathematics needs the same words: both
read them here. This file computes nothing: `adapters/merging/methods.py` does, and a test keeps the two agreed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from lora_compose.adapters.errors import Code, InvalidRequest
from lora_compose.adapters.names import check_name, check_ref, is_version
from lora_compose.adapters.validation import ANY, Fault, Faults, refusal, unknown_field

MAX_RANK = MAX_SEED = 2**31 - 1

Rank = Annotated[int, Ge(1), Le(MAX_RANK)]
Density = Annotated[float, Gt(0), Le(1)]
Seed = Annotated[int, Ge(0), Le(MAX_SEED)]
MajoritySignMethod = Literal["total", "frequency"]

STACK = "stack"
"""The exact sum of deltas, kept factored: the method of a composition that names none."""

METHOD_NAMES: tuple[str, ...] = (
    STACK,
    "linear",
    "svd",
    "ties",
    "dare_linear",
    "dare_ties",
    "magnitude_prune",
)

SPELLINGS: dict[str, str] = {"cat": STACK}
"""Other spellings accepted on input, such as PEFT's name for the exact sum."""

NEEDS_DENSITY: frozenset[str] = frozenset({"ties", "dare_linear", "dare_ties", "magnitude_prune"})
SEEDED: frozenset[str] = frozenset({"dare_linear", "dare_ties"})
ELECTS_SIGN: frozenset[str] = frozenset({"ties", "dare_ties"})
TAKES_RANK: frozenset[str] = frozenset(METHOD_NAMES) - {STACK}


@dataclass(frozen=True)
class MethodOptions:
    """How a method is to combine: a default means the request did not say."""

    rank: int | None = None
    """Rank of the result; None lets the method choose. Never given for a stack."""
    density: float | None = None
    """Fraction of each delta's entries kept, 0 < density <= 1; for the methods in NEEDS_DENSITY only."""
    seed: int = 0
    """Seed of the random drop, 0 <= seed < 2**31; for the methods in SEEDED only."""
    majority_sign_method: MajoritySignMethod = "total"
    """How the sign of an entry is elected; for the methods in ELECTS_SIGN only."""


_TAKEN_BY: dict[str, frozenset[str]] = {
    "rank": TAKES_RANK,
    "density": NEEDS_DENSITY,
    "seed": SEEDED,
    "majority_sign_method": ELECTS_SIGN,
}
OPTION_NAMES = tuple(sorted(_TAKEN_BY))
OPTION_FAULTS: Faults = {
    ("rank", ANY): Fault(Code.INVALID_RANK, f"The rank must be a whole number from 1 to {MAX_RANK}."),
    ("density", ANY): Fault(Code.INVALID_DENSITY, "The density must be above 0 and at most 1."),
    ("seed", ANY): Fault(Code.INVALID_SEED, f"The seed must be a whole number from 0 to {MAX_SEED}."),
    ("majority_sign_method", ANY): Fault(
        Code.INVALID_MAJORITY_SIGN_METHOD, "The majority_sign_method must be 'total' or 'frequency'."
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
    raise InvalidRequest(Code.UNKNOWN_METHOD, f"The method must be one of {', '.join(METHOD_NAMES)}.", param)


def read_options(method: str, given: Mapping[str, object], prefix: str = "composition.") -> MethodOptions:
    """The options a request gave, checked against `method`; None stands for "not given".

    `prefix` goes before an option's name in the error's `param`."""
    said = {name: value for name, value in given.items() if value is not None}
    for name in said:
        if name not in _TAKEN_BY:
            raise unknown_field(name, prefix)
        if method not in _TAKEN_BY[name]:
            raise InvalidRequest(
                Code(f"invalid_{name}"), f"The method {method!r} takes no {name}.", prefix + name
            )
    if method in NEEDS_DENSITY and "density" not in said:
        raise InvalidRequest(
            Code.MISSING_DENSITY, f"The method {method!r} needs a density.", prefix + "density"
        )
    try:
        return MethodOptions(**_OPTIONS.validate_python(said))
    except ValidationError as error:
        raise refusal(error, OPTION_FAULTS, prefix) from error


def check_options(method: str, options: MethodOptions) -> None:
    """Raises InvalidRequest unless `options` could have been given for `method`."""
    if check_method(method) != method:
        raise InvalidRequest(
            Code.UNKNOWN_METHOD, f"{method!r} is only a spelling on input.", "composition.method"
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


MAX_MEMBERS = 16
MAX_WEIGHT = 100.0
MAX_TEXT_LENGTH = 4096

Weight = Annotated[float, Ge(-MAX_WEIGHT), Le(MAX_WEIGHT)]
BAD_WEIGHT = Fault(Code.INVALID_WEIGHT, f"A weight must be a number from {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}.")
_WEIGHT = TypeAdapter[float](Weight, config=ConfigDict(strict=True, allow_inf_nan=False))


@dataclass(frozen=True)
class Member:
    """One adapter in a composition."""

    name: str
    weight: float = 1.0
    """Factor on the adapter's delta; finite, |weight| <= MAX_WEIGHT, and 0 or negative if wanted."""
    ref: str | None = None
    """A version number in digits, or an alias; None is the newest version."""

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.ref is not None:
            check_ref(self.ref)
        # Adding 0.0 turns -0.0 into 0.0: the two are equal and so must print alike.
        object.__setattr__(self, "weight", check_weight(self.weight) + 0.0)

    @property
    def id(self) -> str:
        """`name` or `name@ref`."""
        return self.name if self.ref is None else f"{self.name}@{self.ref}"

    @property
    def canonical(self) -> str:
        return self.id if self.weight == 1.0 else f"{self.id}:{number_text(self.weight)}"


@dataclass(frozen=True)
class Composition:
    """Adapters with weights and a method. Raises InvalidRequest where the parts do not go together."""

    members: tuple[Member, ...]
    method: str = STACK
    options: MethodOptions = field(default_factory=MethodOptions)

    def __post_init__(self) -> None:
        _check_members(self.members)
        check_options(self.method, self.options)
        object.__setattr__(self, "members", tuple(sorted(self.members, key=_order)))
        if len(self.canonical) > MAX_TEXT_LENGTH:
            raise InvalidRequest(
                Code.INVALID_COMPOSITION, f"The composition takes more than {MAX_TEXT_LENGTH} characters."
            )

    @property
    def canonical(self) -> str:
        """The one spelling: `a@1:0.3+b@2`, `ties(a@1+b@2,density=0.3)`.

        Pinned, it is the engine's `lora_name`."""
        members = "+".join(member.canonical for member in self.members)
        if self.method == STACK:
            return members
        return f"{self.method}({','.join([members, *shown_options(self.options)])})"

    @property
    def is_stack(self) -> bool:
        return self.method == STACK

    @property
    def is_pinned(self) -> bool:
        """Whether every member names a version number, so that its meaning can never change."""
        return all(member.ref is not None and is_version(member.ref) for member in self.members)

    def with_refs(self, versions: Mapping[Member, int]) -> "Composition":
        """This composition with each member pinned to the version number it resolved to.

        Raises InvalidRequest("duplicate_member") where two spellings turn out to be one version."""
        pinned = tuple(replace(member, ref=str(versions[member])) for member in self.members)
        return replace(self, members=pinned)


def check_weight(value: object, param: str | None = "weight") -> float:
    """`value` as a weight, or InvalidRequest("invalid_weight"): a finite number, never a bool or a string."""
    try:
        return _WEIGHT.validate_python(value)
    except ValidationError as error:
        raise InvalidRequest(BAD_WEIGHT.code, BAD_WEIGHT.message, param) from error


def _check_members(members: tuple[Member, ...]) -> None:
    if not members:
        raise InvalidRequest(
            Code.INVALID_COMPOSITION, "A composition needs at least one adapter.", "adapters"
        )
    if len(members) > MAX_MEMBERS:
        raise InvalidRequest(
            Code.INVALID_COMPOSITION,
            f"A composition has at most {MAX_MEMBERS} adapters, not {len(members)}.",
            "adapters",
        )
    seen: set[str] = set()
    for member in members:
        if member.id in seen:
            raise InvalidRequest(
                Code.DUPLICATE_MEMBER, f"The adapter {member.id!r} is named twice.", "adapters"
            )
        seen.add(member.id)


def _order(member: Member) -> tuple[str, int, str]:
    """By name; under one name aliases and the newest first, then version numbers."""
    ref = member.ref or ""
    return member.name, int(ref) if is_version(ref) else 0, ref
