"""A composition: which adapters, how strongly, combined by which method. It touches no disk and no tensor.

A Composition that exists is well-formed, and its members are sorted, so equal requests are equal objects with
one canonical name however they were written. Whether its members exist and fit is checked elsewhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated

from annotated_types import Ge, Le
from pydantic import ConfigDict, TypeAdapter, ValidationError

from adapters.composition_options import check_options, number_text, shown_options
from adapters.errors import InvalidRequest
from adapters.method_options import STACK, MethodOptions
from adapters.names import check_name, check_ref, is_version
from adapters.validation import Fault

MAX_MEMBERS = 16
MAX_WEIGHT = 100.0
MAX_TEXT_LENGTH = 4096

Weight = Annotated[float, Ge(-MAX_WEIGHT), Le(MAX_WEIGHT)]
BAD_WEIGHT = Fault("invalid_weight", f"A weight must be a number from {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}.")
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
                "invalid_composition", f"The composition takes more than {MAX_TEXT_LENGTH} characters."
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
        raise InvalidRequest("invalid_composition", "A composition needs at least one adapter.", "adapters")
    if len(members) > MAX_MEMBERS:
        raise InvalidRequest(
            "invalid_composition",
            f"A composition has at most {MAX_MEMBERS} adapters, not {len(members)}.",
            "adapters",
        )
    seen: set[str] = set()
    for member in members:
        if member.id in seen:
            raise InvalidRequest("duplicate_member", f"The adapter {member.id!r} is named twice.", "adapters")
        seen.add(member.id)


def _order(member: Member) -> tuple[str, int, str]:
    """By name; under one name aliases and the newest first, then version numbers."""
    ref = member.ref or ""
    return member.name, int(ref) if is_version(ref) else 0, ref
