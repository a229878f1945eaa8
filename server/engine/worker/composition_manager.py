"""What both LoRA managers share: building adapters from a composition spec, in the background.

vLLM's own manager reads an adapter from one directory, in the engine loop. These build it from components of
the store, concatenated in memory, in a thread of their own. `StackingLoRAManager` keeps what was built in
vLLM's slots, `RuntimeWeightsLoRAManager` keeps it beside them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import Any, ClassVar, Generic

import torch
from vllm.lora.lora_model import LoRAModel
from vllm.lora.model_manager import LRUCacheLoRAModelManager
from vllm.lora.peft_helper import PEFTHelper
from vllm.lora.request import LoRARequest
from vllm.lora.utils import get_supported_lora_modules
from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager

from lora_compose.server.engine.spec import Component
from lora_compose.server.engine.worker.background_build import Build, Preparing, State
from lora_compose.server.engine.worker.stacking import Yielding, load_stack


class CompositionLoRAModelManager(LRUCacheLoRAModelManager):
    """Slots for the linear layers only."""

    def _create_lora_modules(self) -> None:
        # Admission refuses adapters of embeddings and lm_head. Left unwrapped they cost nothing per step,
        # and upstream's CPU ops for them (which misread base rows) are out of the way.
        embeddings = set(self.model.embedding_modules)
        supported = get_supported_lora_modules(self.model)
        self.supported_lora_modules = [module for module in supported if module not in embeddings]
        super()._create_lora_modules()


class CompositionLoRAManager(LRUCacheWorkerLoRAManager, ABC, Generic[Build]):
    """What `CompositionWorkerExtension` calls. Its thread builds; all else is the engine loop's."""

    _manager_cls = CompositionLoRAModelManager
    runtime_weights: ClassVar[bool]
    """Whether one build serves any weights of the same members."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._preparing: Preparing[Build] = Preparing()
        self._fused: tuple[Component, ...] = ()

    @abstractmethod
    def prepare(self, adapter: LoRARequest) -> tuple[State, str]:
        """Begin to build, or see how far it is. The caller asks again while the state is "preparing"."""

    @abstractmethod
    def forget(self, adapter: LoRARequest) -> None:
        """Free its memory and its slot."""

    @abstractmethod
    def prepared(self) -> dict[str, Any]:
        """What is in host memory: each build's name and bytes; and the ids in the slots, in order."""

    @abstractmethod
    def fuse(self, components: Sequence[Component]) -> None:
        """From now on the base weights hold `components`, and every other answer is a residual."""

    @abstractmethod
    def read_meter(self) -> dict[str, Any]:
        """See `metering`."""

    def _advance(
        self, key: Hashable, build: Callable[[Yielding], Build], keep: Callable[[Build], object]
    ) -> tuple[State, str]:
        """Begin to build, or see how far it is. `keep` gets a finished build; a failed one is forgotten."""
        self._preparing.begin(key, build)
        state, reason = self._preparing.state(key)
        if state == "failed":
            self._preparing.forget(key)
        elif state == "prepared":
            built = self._preparing.take(key)
            assert built is not None
            keep(built)
        return state, reason

    def _model_of(self, lora_int_id: int, components: Sequence[Component], yielding: Yielding) -> LoRAModel:
        """Their stack as vLLM's own structure. Raises ValueError for one vLLM cannot serve."""
        stack = load_stack(components, self.lora_config.lora_dtype, yielding)
        rank = max((pair.lora_A.shape[0] for pair in stack.values()), default=1)
        if rank > self.lora_config.max_lora_rank:
            raise ValueError(f"rank {rank} is greater than max_lora_rank {self.lora_config.max_lora_rank}")
        tensors: dict[str, torch.Tensor] = {}
        for name, pair in stack.items():
            tensors[f"base_model.model.{name}.lora_A.weight"] = pair.lora_A
            tensors[f"base_model.model.{name}.lora_B.weight"] = pair.lora_B
        mapper = getattr(self._adapter_manager.model, "hf_to_vllm_mapper", None)
        lora: LoRAModel = self._lora_model_cls.from_lora_tensors(
            lora_int_id,
            tensors,
            PEFTHelper(r=rank, lora_alpha=rank, target_modules=sorted(stack)),
            device="cpu",
            dtype=self.lora_config.lora_dtype,
            model_vocab_size=self.vocab_size,
            weights_mapper=mapper.get_rename_mapper() if mapper is not None else None,
            skip_prefixes=getattr(self._adapter_manager.model, "lora_skip_prefixes", None),
        )
        self._refuse_unmatched(lora)
        return lora

    def _refuse_unmatched(self, lora: LoRAModel) -> None:
        """Upstream drops factors that match no layer of its model in silence; an answer would lack them."""
        manager = self._adapter_manager
        known = set(manager.modules)
        for name, parts in manager.packed_modules.items():
            known.update(parts)
            known.add(name)
        unmatched = sorted(set(lora.loras) - known)
        if unmatched:
            raise ValueError(f"vLLM applies no LoRA to {unmatched[0]} ({len(unmatched)} such modules)")
