"""Warns when the weights of a composition are likely to lose a member. It never refuses anything.

The rule looks at the norms of the members' deltas and at the cosine between them (see `interference`). Its
thresholds are those of RULE. `lora_compose.training.testbed.quality.warnings` measures on all pairs of a
quality table how often the rule is right; docs/composition-quality.md has the figures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from lora_compose.adapters.composition.composition import Composition, Member

if TYPE_CHECKING:
    from lora_compose.adapters.merging.interference import Interference, PairOverlap

Reason = Literal["same_directions", "much_larger", "no_shared_modules", "zero_effect", "different_bases"]


@dataclass(frozen=True)
class Rule:
    """The thresholds of the warnings."""

    cosine: float = 0.02
    """Deltas with at least this cosine between them, both at full strength, add up in the same directions."""
    full_strength: float = 0.9
    """Weights from this on are full strength."""
    ratio: float = 2.0
    """A member whose weighted norm is this many times that of another one at full strength."""


RULE: Final = Rule()

SMALLER_FACTOR: Final = 0.75
"""The suggested factor of a much smaller member. Of six pairs of the testbed with ratios of 2.5 and more,
three kept more with it, two the same, and one less. A lower weight of the larger member cost all six."""


@dataclass(frozen=True)
class Advice:
    """One warning about a composition."""

    reason: Reason
    message: str
    suggested: str | None = None
    """The composition with other weights, to be tried first."""


def advise(composition: Composition, found: "Interference", rule: Rule = RULE) -> list[Advice]:
    """The warnings for `composition`, whose members are in the order of `found`.

    Methods other than a sum (`ties`, `dare_ties`) average, and get only the warnings about single members."""
    members = composition.members
    strengths = [
        abs(member.weight) * strength.norm for member, strength in zip(members, found.strengths, strict=True)
    ]
    advice = [
        Advice("zero_effect", f"Every delta of {member.id} is zero, so it changes nothing.")
        for member, strength in zip(members, found.strengths, strict=True)
        if strength.norm == 0
    ]
    for pair in found.pairs:
        left, right = members[pair.left], members[pair.right]
        sizes = strengths[pair.left], strengths[pair.right]
        if 0 in sizes:
            continue
        if pair.shared == 0:
            message = (
                f"{left.id} and {right.id} change no module in common. Their deltas cannot cancel or add up."
            )
            advice.append(Advice("no_shared_modules", message))
        elif _averages(composition):
            continue
        elif _adds_up(pair, left, right, rule):
            advice.append(_same_directions(composition, pair, found))
        elif max(sizes) >= rule.ratio * min(sizes):
            smaller = left if sizes[0] < sizes[1] else right
            if abs(smaller.weight) >= rule.full_strength:
                advice.append(_much_larger(composition, pair, sizes))
    return advice


def of_different_bases(bases: Sequence[tuple[str, str]]) -> list[Advice]:
    """A warning if two members were trained on different bases. `bases` are (member, base), where known."""
    for name, base in bases[1:]:
        first, own = bases[0]
        if base != own:
            message = (
                f"{first} was trained on the base {own!r}, and {name} on {base!r}. Deltas of different bases "
                "do not add up, even if their shapes are the same."
            )
            return [Advice("different_bases", message)]
    return []


def _averages(composition: Composition) -> bool:
    return composition.method in ("ties", "dare_ties")


def _adds_up(pair: "PairOverlap", left: Member, right: Member, rule: Rule) -> bool:
    sign = 1 if left.weight * right.weight > 0 else -1
    strong = min(abs(left.weight), abs(right.weight)) >= rule.full_strength
    return strong and sign * pair.cosine >= rule.cosine


def _same_directions(composition: Composition, pair: "PairOverlap", found: "Interference") -> Advice:
    left, right = composition.members[pair.left], composition.members[pair.right]
    message = (
        f"The deltas of {left.id} and {right.id} point in similar directions (cosine {pair.cosine:.2f}), and "
        "both have full strength. One of them may be lost. Try lower weights, or search them with "
        "`lora-compose train weights`."
    )
    return Advice("same_directions", message, with_norm_of_largest(composition, found))


def _much_larger(composition: Composition, pair: "PairOverlap", sizes: tuple[float, float]) -> Advice:
    left, right = composition.members[pair.left], composition.members[pair.right]
    large, small = (left, right) if sizes[0] > sizes[1] else (right, left)
    message = (
        f"The deltas of {large.id} are {max(sizes) / min(sizes):.1f} times as large as those of {small.id} "
        f"(norms {max(sizes):.3g} and {min(sizes):.3g}). {small.id} may be lost, or {large.id} may need its "
        "full weight. Search the weights with `lora-compose train weights`."
    )
    return Advice("much_larger", message, _scaled(composition, {small.id: SMALLER_FACTOR}))


def with_norm_of_largest(composition: Composition, found: "Interference") -> str:
    """The composition with all weights lowered alike, so that the sum is as large as its largest member."""
    weights = [member.weight for member in composition.members]
    largest = max(abs(w) * strength.norm for w, strength in zip(weights, found.strengths, strict=True))
    total = found.norm_of_sum(weights)
    factor = min(1.0, largest / total) if total else 1.0
    return _scaled(composition, {member.id: factor for member in composition.members})


def _scaled(composition: Composition, factors: dict[str, float]) -> str:
    members = tuple(
        Member(member.name, round(member.weight * factors.get(member.id, 1.0), 2), member.ref)
        for member in composition.members
    )
    return Composition(members, composition.method, composition.options).canonical
