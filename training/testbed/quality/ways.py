"""The ways of combining adapters that are measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lora_compose.adapters.composition.composition import MethodOptions
from lora_compose.adapters.merging.merge import MergeBase, MergeInput, build
from lora_compose.adapters.peft.checkpoint import Lora, open_adapter

DENSITY: Final = 0.5
"""The density of the ways that prune."""


@dataclass(frozen=True)
class Way:
    """A way of combining: a method with its options. All weights are 1, or 1/k for k members."""

    method: str
    rank_share: float | None = None
    """The rank of the result, as a share of the sum of the members' ranks. None: the method's default."""
    density: float | None = None
    mean: bool = False
    """Whether the weights are 1/k."""

    def compose(self, members: Sequence[Path], output: Path) -> Lora:
        """One adapter from the directories of the members. It is also written to `output`."""
        weight = 1 / len(members) if self.mean else 1.0
        return combine(self, members, [weight] * len(members), output)


WAYS: Final[dict[str, Way]] = {
    "stack": Way("stack"),
    "linear": Way("linear"),
    "linear, mean": Way("linear", mean=True),
    "svd": Way("svd"),
    "cat→svd": Way("svd", rank_share=0.75),
    "ties": Way("ties", density=DENSITY),
    "dare_ties": Way("dare_ties", density=DENSITY),
    "magnitude_prune": Way("magnitude_prune", density=DENSITY),
}


def combine(way: Way, members: Sequence[Path], weights: Sequence[float], output: Path) -> Lora:
    """The members with `weights`, combined by the method of `way`."""
    rank = None
    if way.rank_share is not None:
        rank = int(way.rank_share * sum(open_adapter(member).rank for member in members))
    inputs = [MergeInput(member, weight) for member, weight in zip(members, weights, strict=True)]
    build(way.method, inputs, MethodOptions(rank=rank, density=way.density), output, MergeBase("base"))
    return open_adapter(output)
