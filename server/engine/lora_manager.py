"""vLLM's worker-side LoRA managers, taught to build adapters from a composition spec.

Differences from upstream's. An adapter comes from components of our store, concatenated in memory, not from a
directory; it is built by a thread of its own and only kept by the engine loop; it takes a slot when a batch
needs one, so that adding it never evicts what a running batch is using; and it survives a reload of the base.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from vllm.lora.layers import LoRAMapping
from vllm.lora.lora_model import LoRAModel
from vllm.lora.model_manager import LRUCacheLoRAModelManager
from vllm.lora.peft_helper import PEFTHelper
from vllm.lora.request import LoRARequest
from vllm.lora.utils import get_supported_lora_modules
from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager

from server.engine.preparing import Preparing, State
from server.engine.spec import Component, combined, decode_spec, encode_spec
from server.engine.stacking import Stack, load_stack

logger = logging.getLogger(__name__)

RESIDUAL_OF_BASE = 1 << 30
"""The LoRA id under which the base is served while something is fused."""


class CompositionLoRAModelManager(LRUCacheLoRAModelManager):
    """Slots for the linear layers only."""

    def _create_lora_modules(self) -> None:
        # Admission refuses adapters of embeddings and lm_head. Left unwrapped they cost nothing per step,
        # and upstream's CPU ops for them (which misread base rows) are out of the way.
        embeddings = set(self.model.embedding_modules)
        supported = get_supported_lora_modules(self.model)
        self.supported_lora_modules = [module for module in supported if module not in embeddings]
        super()._create_lora_modules()


class CompositionWorkerLoRAManager(LRUCacheWorkerLoRAManager):
    """Loads composition specs, weights folded in. Its thread builds; all else is the engine loop's."""

    _manager_cls = CompositionLoRAModelManager
    runtime_weights = False
    """Whether one build serves any weights of the same members."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._preparing: Preparing[LoRAModel] = Preparing()
        self._fused: tuple[Component, ...] = ()
        self._specs: dict[int, str] = {}
        """Of everything that was kept and not forgotten since."""

    def prepare(self, lora_int_id: int, spec: str) -> tuple[State, str]:
        """Begin to build, or see how far it is. Whoever asks comes again until it is not "preparing"."""
        if lora_int_id in self.list_adapters():
            return "prepared", ""
        self._preparing.begin(lora_int_id, lambda: self._load_spec(lora_int_id, spec))
        state, reason = self._preparing.state(lora_int_id)
        if state == "failed":
            self._preparing.forget(lora_int_id)
        elif state == "prepared":
            self.add_adapter(LoRARequest(f"prepared {lora_int_id}", lora_int_id, spec))
        return state, reason

    def forget(self, lora_int_id: int, spec: str) -> None:
        """Free its memory and its slot."""
        del spec  # where weights come with the requests, it says what to forget
        self._preparing.forget(lora_int_id)
        self._specs.pop(lora_int_id, None)
        self.remove_adapter(lora_int_id)

    def prepared(self) -> dict[str, Any]:
        """What is in host memory: each build's id and bytes; and the ids in the slots, in order."""
        adapters = self._adapter_manager.list_adapters()
        sizes = {str(lora_int_id): _size(lora) for lora_int_id, lora in adapters.items()}
        return {"bytes": sizes, "slots": list(self._adapter_manager.lora_index_to_id)}

    def read_meter(self) -> dict[str, Any]:
        """See `metering`. Here the kernels are not ours to measure."""
        return {"tokens": [], "busy_seconds": 0.0, "overheads": []}

    def fuse(self, components: Sequence[Component]) -> None:
        """From now on the base weights hold `components`, and every other answer is a residual.

        What was built for another base is built again, except residuals of too high a rank: nobody is
        served those before the next switch.
        """
        self._fused = tuple(components)
        self._preparing.clear()
        self.remove_all_adapters()
        self._specs.pop(RESIDUAL_OF_BASE, None)
        for lora_int_id, spec in list(self._specs.items()):
            try:
                self.add_adapter(LoRARequest(f"prepared {lora_int_id}", lora_int_id, spec))
            except ValueError as error:
                logger.info("adapter %d is not built while this is fused: %s", lora_int_id, error)

    def add_adapter(self, lora_request: LoRARequest) -> bool:
        """Keep what was prepared. Raises what building it raised, changing nothing."""
        if lora_request.lora_int_id in self.list_adapters():
            return bool(self._adapter_manager.get_adapter(lora_request.lora_int_id))
        lora = self._preparing.take(lora_request.lora_int_id) or self._load_adapter(lora_request)
        if len(self._adapter_manager) + 1 > self._adapter_manager.capacity:
            self._adapter_manager.remove_oldest_adapter()
        self._specs[lora_request.lora_int_id] = lora_request.lora_path
        return bool(self._adapter_manager.add_adapter(lora))

    def set_active_adapters(self, requests: set[LoRARequest], mapping: LoRAMapping | None) -> None:
        """Upstream's. While something is fused, its own rows need no LoRA and the base's rows need one."""
        if self._fused and mapping is not None:
            free = {r.lora_int_id for r in requests if not combined(decode_spec(r.lora_path), self._fused)}
            requests = {r for r in requests if r.lora_int_id not in free}
            ids = {0: RESIDUAL_OF_BASE, **dict.fromkeys(free, 0)}
            if 0 in mapping.index_mapping:
                requests.add(LoRARequest("-fused", RESIDUAL_OF_BASE, encode_spec(())))
            mapping = replace(
                mapping,
                index_mapping=tuple(ids.get(i, i) for i in mapping.index_mapping),
                prompt_mapping=tuple(ids.get(i, i) for i in mapping.prompt_mapping),
            )
        super().set_active_adapters(requests, mapping)

    def _apply_adapters(self, lora_requests: set[LoRARequest]) -> None:
        """Give every adapter of the coming batch a slot, held ones first so that none loses its own."""
        manager = self._adapter_manager
        if len(lora_requests) > manager.lora_slots:
            raise RuntimeError(f"{len(lora_requests)} adapters in a batch, {manager.lora_slots} slots")
        wanted = sorted(lora_requests, key=lambda r: r.lora_int_id not in manager._active_adapters)
        for lora_request in wanted:
            self.add_adapter(lora_request)
            manager.activate_adapter(lora_request.lora_int_id)

    def _load_adapter(self, lora_request: LoRARequest) -> LoRAModel:
        return self._load_spec(lora_request.lora_int_id, lora_request.lora_path)

    def _load_spec(self, lora_int_id: int, spec: str) -> LoRAModel:
        residual = combined(decode_spec(spec), self._fused)
        return self._model_of(lora_int_id, load_stack(residual, self.lora_config.lora_dtype))

    def _model_of(self, lora_int_id: int, stack: Stack) -> LoRAModel:
        """The stack as vLLM's own structure. Raises ValueError for one vLLM cannot serve."""
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


def _size(lora: LoRAModel) -> int:
    factors = [factor for layer in lora.loras.values() for factor in (layer.lora_a, layer.lora_b)]
    tensors = [t for factor in factors for t in (factor if isinstance(factor, list) else [factor])]
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)
