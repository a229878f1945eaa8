"""The plans of a batch in the layers of one kind: the linear layers, the input embedding or the output head.

Their rows differ. A linear layer has a row for each token. The embedding has one for each token that the
prompt gives as an id. The head has one for each token whose successor is sampled, and prompt logprobs ask it
for the rows of one request.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch

from lora_compose.server.engine.cpu.packed_factors import EmbeddingPack, Pack

Layer = int
"""`id` of an object that belongs to a layer and that the layer keeps alive."""
Work = TypeVar("Work")
Plan = TypeVar("Plan")


@dataclass(frozen=True, eq=False)
class Member:
    """One prepared adapter."""

    packs: Mapping[Layer, Pack]
    embeddings: Mapping[Layer, EmbeddingPack] = field(default_factory=dict)
    scales: bool = False
    """Whether it has DoRA scales, so that its layers scale the base's output."""
    shifts: bool = False
    """Whether it has biases."""

    @property
    def nbytes(self) -> int:
        """The bytes of everything that it adds to layers."""
        embeddings = sum(pack.nbytes for pack in self.embeddings.values())
        return embeddings + sum(pack.nbytes for pack in self.packs.values())


class Plans(Generic[Work, Plan]):
    """The plans for one batch after another. Each is made when its layer first needs it."""

    def __init__(self, make: Callable[[Work, Mapping[str, Any], torch.dtype], Plan], packs: str) -> None:
        """`make` gets the packs of the members in a layer, None for a member without. `packs` is their
        attribute of `Member`."""
        self._make = make
        self._attribute = packs
        self._work: Work | None = None
        self._packs: dict[str, Mapping[Layer, Any]] = {}
        self._plans: dict[Layer, Plan | None] = {}

    def begin(self, work: Work, names: Iterable[str], members: Callable[[str], Member]) -> None:
        """Set the next batch, which uses `names`. `members` returns an adapter of the store by its
        directory."""
        self._work = work
        self._packs = {name: getattr(members(name), self._attribute) for name in names}
        self._plans = {}

    def find(self, layer: Layer, dtype: torch.dtype) -> Plan | None:
        """The layer's plan, or None if no row of the batch has factors for the layer."""
        if self._work is None or not self._packs:
            return None
        if layer not in self._plans:
            packs = {name: known.get(layer) for name, known in self._packs.items()}
            self._plans[layer] = self._make(self._work, packs, dtype) if any(packs.values()) else None
        return self._plans[layer]
