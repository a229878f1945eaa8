"""The plans of a batch for the two ends of a model: the input embedding and the output head.

Their rows are not the rows of the linear layers. The embedding has one for each token that the prompt gives
as an id. The head has one for each token whose successor is sampled, and prompt logprobs ask it for the rows
of one request.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

import torch

from lora_compose.server.engine.cpu.batch import Batch

Layer = int
"""`id` of an object that belongs to a layer and that the layer keeps alive."""
Pack = TypeVar("Pack")
Plan = TypeVar("Plan")


class EndPlans(Generic[Pack, Plan]):
    """The plans of one end for one batch after another. Each is made when it is first needed."""

    def __init__(self, make: Callable[[Batch, Sequence[Pack | None], torch.dtype], Plan]) -> None:
        self._make = make
        self._batch: Batch | None = None
        self._members: list[Mapping[Layer, Pack]] = []
        self._plans: dict[Layer, Plan | None] = {}

    def begin(self, batch: Batch, members: Callable[[str], Mapping[Layer, Pack]]) -> None:
        """Set the next batch. `members` returns an adapter of the store by its directory."""
        self._batch = batch if batch.shares else None
        self._members = [members(share.member) for share in batch.shares]
        self._plans = {}

    def find(self, layer: Layer, dtype: torch.dtype) -> Plan | None:
        """The layer's plan, or None if no row of the batch has factors for the layer."""
        if self._batch is None:
            return None
        if layer not in self._plans:
            packs = [member.get(layer) for member in self._members]
            self._plans[layer] = self._make(self._batch, packs, dtype) if any(packs) else None
        return self._plans[layer]
