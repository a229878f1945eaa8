"""The base class of both LoRA managers: it builds adapters from a composition spec, in the background.

vLLM's own manager reads an adapter from one directory, in the engine loop. These managers build it from
components of the store, which they concatenate in memory in a background thread. `StackingLoRAManager` keeps
the builds in vLLM's slots, `RuntimeWeightsLoRAManager` keeps them outside of the slots.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic

import torch
from typing_extensions import override
from vllm.config import VllmConfig
from vllm.lora.lora_model import LoRAModel
from vllm.lora.model_manager import LRUCacheLoRAModelManager
from vllm.lora.peft_helper import PEFTHelper
from vllm.lora.request import LoRARequest
from vllm.lora.utils import get_supported_lora_modules
from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager

from lora_compose.adapters.peft.base_weights import BaseWeights
from lora_compose.server.engine.cpu.packed_factors import PackedPair
from lora_compose.server.engine.spec import Component, combined, components_of, encode_spec, is_spec
from lora_compose.server.engine.worker.background_build import BackgroundBuilds, Build, State
from lora_compose.server.engine.worker.stacking import AdapterReader, Yielding

BASE_RESIDUAL = LoRARequest("-fused", 1 << 30, encode_spec(()))
"""The request under which the base is served while a composition is fused."""


class CompositionLoRAModelManager(LRUCacheLoRAModelManager):
    """Slots for the linear layers only."""

    @override
    def _create_lora_modules(self) -> None:
        # Upstream's layers for the input embedding and lm_head cost time in every step and fill a matrix of
        # the vocabulary's size for each slot. Its CPU ops for them misread base rows, and prompt logprobs get
        # the wrong rows.
        embeddings = set(self.model.embedding_modules)
        supported = get_supported_lora_modules(self.model)
        self.supported_lora_modules = [module for module in supported if module not in embeddings]
        super()._create_lora_modules()

    @override
    def _match_target_modules(self, module_name: str) -> bool:
        last = module_name.rpartition(".")[2]
        return last not in self.model.embedding_modules and bool(super()._match_target_modules(module_name))


class CompositionLoRAManager(LRUCacheWorkerLoRAManager, ABC, Generic[Build]):
    """The manager that `CompositionWorkerExtension` calls. Only builds run outside the engine loop."""

    _manager_cls = CompositionLoRAModelManager
    runtime_weights: ClassVar[bool]
    """True if one build of an adapter serves any weight of it."""

    def __init__(self, vllm_config: VllmConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(vllm_config, *args, **kwargs)
        self._builds: BackgroundBuilds[Build] = BackgroundBuilds()
        self._fused: tuple[Component, ...] = ()
        self.reader = AdapterReader(BaseWeights(Path(vllm_config.model_config.model)))

    @abstractmethod
    def prepare(self, adapter: LoRARequest) -> tuple[State, str]:
        """Start the build, or return its state. The caller polls while the state is "preparing"."""

    @abstractmethod
    def unload(self, adapter: LoRARequest) -> None:
        """Free the memory and the slot of an adapter."""

    @abstractmethod
    def prepared(self) -> dict[str, Any]:
        """The name and bytes of each build in host memory, and the ids in the slots, in order."""

    @abstractmethod
    def fuse(self, components: Sequence[Component], embeddings_too: bool = True) -> None:
        """The base weights now contain `components`: serve every composition as its residual.

        If not `embeddings_too`, the weights of the input embedding and the head are the base's own."""

    @abstractmethod
    def read_meter(self) -> dict[str, Any]:
        """Tokens and LoRA costs since the last call (see `cost_meter`)."""

    def needed(self, lora_requests: Collection[LoRARequest | None]) -> set[LoRARequest]:
        """What rows of these requests need added to the present base weights. None is a request for the base.

        A dummy request of vLLM needs itself."""
        found = {
            r
            for r in lora_requests
            if r is not None and (self._residual(r.lora_path) or not is_spec(r.lora_path))
        }
        return found | {BASE_RESIDUAL} if self._fused and None in lora_requests else found

    def _residual(self, path: str | None) -> dict[str, float]:
        """The adapters that a request adds to the present base weights."""
        return {c.directory: c.weight for c in combined(components_of(path), self._fused)}

    def _advance(
        self, key: Hashable, build: Callable[[Yielding], Build], keep: Callable[[Build], object]
    ) -> tuple[State, str]:
        """Start the build, or return its state. `keep` gets a finished build; a failed one is discarded."""
        self._builds.start(key, build)
        state, reason = self._builds.state(key)
        if state == "failed":
            self._builds.discard(key)
        elif state == "prepared":
            built = self._builds.take(key)
            assert built is not None
            keep(built)
        return state, reason

    def _lora_model(self, lora_int_id: int, stack: Mapping[str, PackedPair], rank: int) -> LoRAModel:
        """`stack`, whose modules have at most `rank`, as vLLM's `LoRAModel`.

        Raises ValueError if vLLM cannot serve it."""
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
        """Refuse factors that match no layer.

        Upstream drops them silently, and the answers would lack them."""
        unmatched = sorted(set(lora.loras) - self.module_names())
        if unmatched:
            raise ValueError(f"vLLM does not apply LoRA to {unmatched[0]} ({len(unmatched)} such modules)")

    def embedding_names(self) -> set[str]:
        """The last parts of the names of the input embedding and the head, if they can have factors here."""
        manager = self._adapter_manager
        return {name.rpartition(".")[2] for name in manager.modules} & set(manager.model.embedding_modules)

    def module_names(self) -> set[str]:
        """The modules that can have factors here, and the parts of packed ones."""
        manager = self._adapter_manager
        packed = manager.packed_modules.items()
        return {
            *manager.modules,
            *(name for name, _ in packed),
            *(part for _, parts in packed for part in parts),
        }
