"""The price of a token while a composition is fused, in units of a token without LoRA work. Pure functions.

A model is named by its canonical composition, which contains all of its members; None is the base. While f is
fused, the base runs as the stack `-f` and any other x as `x - f`. Members of equal weight cancel, and all
others are LoRA work.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite

from lora_compose.adapters.composition.grammar import parse

Model = str | None
Members = frozenset[tuple[str, float]]
"""(adapter id, weight) of each member whose weight is not 0."""


@dataclass(frozen=True)
class Costs:
    """Measured costs.

    Raises ValueError, with the field, if a value is negative or not finite: clamp noise to 0."""

    overhead: float | None
    """Extra time of a token with LoRA work, relative to one without (0.12: 12 %). None: not measured yet."""
    per_member: float = 0.0
    """Additional extra time, in the same unit, for each member of the stack after the first."""
    switch_seconds: float = 5.0
    """Seconds that serving is paused during a switch. The default is used until a switch was measured."""

    def __post_init__(self) -> None:
        for name in ("overhead", "per_member", "switch_seconds"):
            value = getattr(self, name)
            if value is not None and not (isfinite(value) and value >= 0):
                raise ValueError(f"{name} ({value}) must be finite and at least 0")


@lru_cache(maxsize=4096)
def members(model: Model) -> Members:
    """The members that `model` adds to the base.

    A merge is a single member of its own: its parts never cancel."""
    if model is None:
        return frozenset()
    composition = parse(model)
    if not composition.is_stack:
        return frozenset({(model, 1.0)})
    return frozenset((member.id, member.weight) for member in composition.members if member.weight)


def token_price(wanted: Model, fused: Model, costs: Costs) -> float:
    """1 without LoRA work, else 1 + overhead + per_member * (n - 1) for the n members of `wanted - fused`."""
    assert costs.overhead is not None
    residual = len({adapter for adapter, _ in members(wanted) ^ members(fused)})
    return 1.0 + (costs.overhead + costs.per_member * (residual - 1) if residual else 0.0)


def mean_price(tokens: Mapping[Model, float], fused: Model, costs: Costs) -> float:
    """The mean price of the tokens. There must be at least one."""
    priced = sum(count * token_price(model, fused, costs) for model, count in tokens.items())
    return priced / sum(tokens.values())


def worst_loss(size: int, costs: Costs) -> float:
    """The largest share of serving time that fusing `size` members can lose, over all possible traffic.

    The base then costs overhead + per_member * (size - 1) more, and an x that shares no member costs
    per_member * size more. Both are at most overhead + per_member * size, added to a price of at least 1."""
    assert costs.overhead is not None
    extra = costs.overhead + costs.per_member * size
    return extra / (1.0 + extra)
