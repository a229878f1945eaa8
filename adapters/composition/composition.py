"""A composition: which adapters, with which weights, combined by which method with which options.

Every Composition object is well-formed, because its constructor checks it. Its members are sorted, so equal
requests give equal objects with the same canonical text. Requests of all forms (text, our JSON fields,
LoRAX's fields) are checked by the functions here. Other code checks that the members exist and fit the base.

The names of the methods and their options are plain data here, so that text can be parsed without torch.
`adapters/merging/methods.py` computes the merges. A test checks that the two files agree.
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
"""The exact sum of the deltas, stored as factors. It is the default method."""

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
"""Other names that requests may use for a method, such as PEFT's name for the exact sum."""

NEEDS_DENSITY: frozenset[str] = frozenset({"ties", "dare_linear", "dare_ties", "magnitude_prune"})
SEEDED: frozenset[str] = frozenset({"dare_linear", "dare_ties"})
ELECTS_SIGN: frozenset[str] = frozenset({"ties", "dare_ties"})
TAKES_RANK: frozenset[str] = frozenset(METHOD_NAMES) - {STACK}


@dataclass(frozen=True)
class MethodOptions:
    """The options of a method. A request without an option means its default."""

    rank: int | None = None
    """Rank of the result. None: the method chooses it. A stack does not take it."""
    density: float | None = None
    """Fraction of each delta's entries that is kept, 0 < density <= 1. Only for methods in NEEDS_DENSITY."""
    seed: int = 0
    """Seed for dropping entries at random, 0 <= seed < 2**31. Only for methods in SEEDED."""
    majority_sign_method: MajoritySignMethod = "total"
    """How the sign of an entry is elected. Only for methods in ELECTS_SIGN."""


_TAKEN_BY: dict[str, frozenset[str]] = {
    "rank": TAKES_RANK,
    "density": NEEDS_DENSITY,
    "seed": SEEDED,
    "majority_sign_method": ELECTS_SIGN,
}
OPTION_NAMES = tuple(sorted(_TAKEN_BY))
OPTION_FAULTS: Faults = {
    ("rank", ANY): Fault(Code.INVALID_RANK, f"rank must be a whole number from 1 to {MAX_RANK}."),
    ("density", ANY): Fault(Code.INVALID_DENSITY, "density must be a number above 0 and at most 1."),
    ("seed", ANY): Fault(Code.INVALID_SEED, f"seed must be a whole number from 0 to {MAX_SEED}."),
    ("majority_sign_method", ANY): Fault(
        Code.INVALID_MAJORITY_SIGN_METHOD, "majority_sign_method must be 'total' or 'frequency'."
    ),
}


@with_config(ConfigDict(strict=True, allow_inf_nan=False))
class _OptionFields(TypedDict, total=False):
    rank: Rank
    density: Density
    seed: Seed
    majority_sign_method: MajoritySignMethod


_OPTIONS = TypeAdapter(_OptionFields)


def check_method(value: object, param: str | None = "composition.method") -> str:
    """The name in METHOD_NAMES that `value` is or is another spelling of.

    Raises InvalidRequest("unknown_method")."""
    if isinstance(value, str):
        method = SPELLINGS.get(value, value)
        if method in METHOD_NAMES:
            return method
    raise InvalidRequest(Code.UNKNOWN_METHOD, f"The method must be one of {', '.join(METHOD_NAMES)}.", param)


def read_options(method: str, options: Mapping[str, object], prefix: str = "composition.") -> MethodOptions:
    """Check the options of a request for `method`. An option with the value None counts as missing.

    `prefix` comes before the name of the option in the `param` of an error."""
    present = {name: value for name, value in options.items() if value is not None}
    for name in present:
        if name not in _TAKEN_BY:
            raise unknown_field(name, prefix)
        if method not in _TAKEN_BY[name]:
            raise InvalidRequest(
                Code(f"invalid_{name}"), f"The method {method!r} has no option {name}.", prefix + name
            )
    if method in NEEDS_DENSITY and "density" not in present:
        raise InvalidRequest(
            Code.MISSING_DENSITY, f"The method {method!r} needs the option density.", prefix + "density"
        )
    try:
        return MethodOptions(**_OPTIONS.validate_python(present))
    except ValidationError as error:
        raise refusal(error, OPTION_FAULTS, prefix) from error


def check_options(method: str, options: MethodOptions) -> None:
    """Raises InvalidRequest unless `method` is in METHOD_NAMES and takes `options`."""
    if check_method(method) != method:
        raise InvalidRequest(
            Code.UNKNOWN_METHOD,
            f"{method!r} must be written as {check_method(method)!r} here.",
            "composition.method",
        )
    read_options(method, _not_default(options))


def shown_options(options: MethodOptions) -> list[str]:
    """`name=value` for each option that does not have its default, in alphabetical order."""
    values = _not_default(options)
    return [f"{name}={_shown(values[name])}" for name in OPTION_NAMES if name in values]


def number_text(value: float) -> str:
    """The shortest decimal text that parses to the same double: `0.5`, `2`, `1e-05`."""
    return repr(value).removesuffix(".0")


def _not_default(options: MethodOptions) -> dict[str, object]:
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
    """Factor on the delta of the adapter. It is finite, |weight| <= MAX_WEIGHT, and may be 0 or negative."""
    ref: str | None = None
    """A version number in digits, or an alias. None means the newest version."""

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.ref is not None:
            check_ref(self.ref)
        # Adding 0.0 changes -0.0 to 0.0. The two are equal, so they must have the same text.
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
    """Adapters with weights and a method. Raises InvalidRequest if it is not well-formed."""

    members: tuple[Member, ...]
    method: str = STACK
    options: MethodOptions = field(default_factory=MethodOptions)

    def __post_init__(self) -> None:
        _check_members(self.members)
        check_options(self.method, self.options)
        object.__setattr__(self, "members", tuple(sorted(self.members, key=_order)))
        if len(self.canonical) > MAX_TEXT_LENGTH:
            raise InvalidRequest(
                Code.INVALID_COMPOSITION,
                f"The text of the composition is longer than {MAX_TEXT_LENGTH} characters.",
            )

    @property
    def canonical(self) -> str:
        """The canonical text: `a@1:0.3+b@2`, `ties(a@1+b@2,density=0.3)`.

        If all members have version numbers, it is the engine's `lora_name`."""
        members = "+".join(member.canonical for member in self.members)
        if self.method == STACK:
            return members
        return f"{self.method}({','.join([members, *shown_options(self.options)])})"

    @property
    def is_stack(self) -> bool:
        return self.method == STACK

    def with_refs(self, versions: Mapping[Member, int]) -> "Composition":
        """This composition with the version numbers `versions` as the refs of its members.

        Raises InvalidRequest("duplicate_member") if two members resolve to the same version."""
        members = tuple(replace(member, ref=str(versions[member])) for member in self.members)
        return replace(self, members=members)


def check_weight(value: object, param: str | None = "weight") -> float:
    """Return `value` if it is a finite number in range, and not a bool or string.

    Raises InvalidRequest("invalid_weight")."""
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
                Code.DUPLICATE_MEMBER,
                f"The composition contains the adapter {member.id!r} twice.",
                "adapters",
            )
        seen.add(member.id)


def _order(member: Member) -> tuple[str, int, str]:
    """Sort key: by name. Members of one name are sorted: newest, aliases, then version numbers."""
    ref = member.ref or ""
    return member.name, int(ref) if is_version(ref) else 0, ref
