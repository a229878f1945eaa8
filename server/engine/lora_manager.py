"""vLLM's worker-side LoRA managers, taught to build adapters from a composition spec.

Two differences from upstream's. An adapter comes from components of our store, concatenated in memory, not
from a directory. And `add_lora` only *prepares* (host memory): it takes a slot when a batch needs one, so
adding an adapter never evicts one that a running batch is using.
"""

import torch
from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA
from vllm.lora.lora_model import LoRAModel
from vllm.lora.model_manager import LRUCacheLoRAModelManager
from vllm.lora.peft_helper import PEFTHelper
from vllm.lora.request import LoRARequest
from vllm.lora.utils import get_supported_lora_modules
from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager

from server.engine.cpu_lora import GroupedPunicaWrapper
from server.engine.spec import decode_spec
from server.engine.stacking import load_stack


class CompositionLoRAModelManager(LRUCacheLoRAModelManager):
    """Slots, and for the CPU kernels each slot's factors at their true rank."""

    def _create_lora_modules(self) -> None:
        # Admission refuses adapters of embeddings and lm_head. Left unwrapped they cost nothing per step,
        # and upstream's CPU ops for them (which misread base rows) are out of the way.
        embeddings = set(self.model.embedding_modules)
        supported = get_supported_lora_modules(self.model)
        self.supported_lora_modules = [module for module in supported if module not in embeddings]
        super()._create_lora_modules()

    def activate_adapter(self, lora_id: int) -> bool:
        activated = super().activate_adapter(lora_id)
        if activated:
            self._pack_slot(self.lora_index_to_id.index(lora_id), lora_id)
        return activated

    def _pack_slot(self, slot: int, lora_id: int) -> None:
        lora = self._registered_adapters[lora_id]
        for name, layer in self.modules.items():
            if not isinstance(layer, BaseLinearLayerWithLoRA):
                continue
            wrapper = layer.punica_wrapper
            if isinstance(wrapper, GroupedPunicaWrapper):
                weights = self._get_lora_layer_weights(lora, name)
                wrapper.pack(layer, slot, _ranks(layer, weights.lora_a if weights else None))


def _ranks(
    layer: BaseLinearLayerWithLoRA, lora_a: torch.Tensor | list[torch.Tensor | None] | None
) -> list[int]:
    """The true rank of each of a layer's slices (q, k and v of a packed qkv, say); 0 where there is none."""
    if lora_a is None:
        return [0] * layer.n_slices
    slices = lora_a if isinstance(lora_a, list) else [lora_a] * layer.n_slices
    return [0 if a is None else a.shape[0] for a in slices]


class CompositionWorkerLoRAManager(LRUCacheWorkerLoRAManager):
    """Loads composition specs. The engine loop calls it; it is not thread-safe, as upstream's is not."""

    _manager_cls = CompositionLoRAModelManager

    def _load_adapter(self, lora_request: LoRARequest) -> LoRAModel:
        stack = load_stack(decode_spec(lora_request.lora_path), self.lora_config.lora_dtype)
        rank = max(a.shape[0] for a, _ in stack.values())
        if rank > self.lora_config.max_lora_rank:
            raise ValueError(f"rank {rank} is greater than max_lora_rank {self.lora_config.max_lora_rank}")
        tensors: dict[str, torch.Tensor] = {}
        for name, (lora_a, lora_b) in stack.items():
            tensors[f"base_model.model.{name}.lora_A.weight"] = lora_a
            tensors[f"base_model.model.{name}.lora_B.weight"] = lora_b
        mapper = getattr(self._adapter_manager.model, "hf_to_vllm_mapper", None)
        lora: LoRAModel = self._lora_model_cls.from_lora_tensors(
            lora_request.lora_int_id,
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

    def add_adapter(self, lora_request: LoRARequest) -> bool:
        """Prepare: read, concatenate, keep in host memory. Raises what reading raises, changing nothing."""
        if lora_request.lora_int_id in self.list_adapters():
            return bool(self._adapter_manager.get_adapter(lora_request.lora_int_id))
        lora = self._load_adapter(lora_request)
        if len(self._adapter_manager) + 1 > self._adapter_manager.capacity:
            self._adapter_manager.remove_oldest_adapter()
        return bool(self._adapter_manager.add_adapter(lora))

    def _apply_adapters(self, lora_requests: set[LoRARequest]) -> None:
        """Give every adapter of the coming batch a slot, held ones first so that none loses its own."""
        manager = self._adapter_manager
        if len(lora_requests) > manager.lora_slots:
            raise RuntimeError(f"{len(lora_requests)} adapters in a batch, {manager.lora_slots} slots")
        wanted = sorted(lora_requests, key=lambda r: r.lora_int_id not in manager._active_adapters)
        for lora_request in wanted:
            self.add_adapter(lora_request)
            manager.activate_adapter(lora_request.lora_int_id)
