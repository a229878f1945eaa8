"""The LoRA manager for our own kernels on devices: adapters in pools of ranks, weights applied per row.

Host memory keeps every prepared adapter. A batch brings those that it needs to the device; from then on, any
composition of them costs no build and no copy. Fusing builds nothing either.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from typing_extensions import override
from vllm.config import VllmConfig
from vllm.lora.layers import LoRAMapping
from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA
from vllm.lora.model_manager import DEFAULT_LANGUAGE_WRAPPER_KEY
from vllm.lora.request import LoRARequest

from lora_compose.server.engine.cpu.cost_meter import CountedLoad
from lora_compose.server.engine.device.layer_pool import HostFactors, LayerPool
from lora_compose.server.engine.device.punica_wrapper import PooledPunicaWrapper
from lora_compose.server.engine.device.rank_pool import RankPool
from lora_compose.server.engine.device.trial import self_check
from lora_compose.server.engine.spec import Component, components_of
from lora_compose.server.engine.worker.composition_manager import CompositionLoRAModelManager
from lora_compose.server.engine.worker.member_manager import MemberLoRAManager, RowCounts
from lora_compose.server.engine.worker.runtime_weights import factors_of
from lora_compose.server.engine.worker.stacking import Yielding, factors_only, rank_of
from lora_compose.server.engine.worker.step_times import StepTimes

logger = logging.getLogger(__name__)


class PooledModelManager(CompositionLoRAModelManager):
    """Gives each linear layer a pool in place of vLLM's slots."""

    @override
    def _init_punica_wrapper(self, max_num_batched_tokens: int, vllm_config: VllmConfig) -> None:
        self.supports_mm = False
        if torch.device(self.device).type == "cuda":
            error = self_check(self.lora_config.lora_dtype, str(self.device))
            logger.info("our LoRA kernels are right on this device: relative error %.1e", error)
        wrapper = PooledPunicaWrapper(
            max_num_batched_tokens, self.max_num_seqs, self.device, self.lora_config
        )
        self.punica_wrapper_mapping = {DEFAULT_LANGUAGE_WRAPPER_KEY: wrapper}

    @property
    def wrapper(self) -> PooledPunicaWrapper:
        """The only one."""
        found = self.punica_wrapper_mapping[DEFAULT_LANGUAGE_WRAPPER_KEY]
        assert isinstance(found, PooledPunicaWrapper)
        return found

    @override
    def register_module(self, module_name: str, module: Any) -> None:
        super().register_module(module_name, module)
        if not isinstance(module, BaseLinearLayerWithLoRA) or self.lora_config.fully_sharded_loras:
            raise NotImplementedError(
                f"our LoRA kernels do not apply to {module_name} ({type(module).__name__}). "
                "Start without lora_kernels in --additional-config."
            )
        size = pool_size(self.lora_config)
        like = module.lora_a_stacked[0]
        widths = [lora_b.shape[2] for lora_b in module.lora_b_stacked]
        pool = LayerPool.empty(size, like.shape[-1], widths, like.dtype, like.device)
        module.lora_a_stacked = self.wrapper.add_pool(pool)
        module.lora_b_stacked = ()


def pool_size(lora_config: Any) -> int:
    """Ranks for the largest batch: `max_loras` compositions, and the fused one that they subtract."""
    return int((lora_config.max_loras + 1) * lora_config.max_lora_rank)


@dataclass(frozen=True, eq=False)
class PooledMember:
    """One prepared adapter: its factors by the number of the layer's pool. All have `rank` ranks."""

    rank: int
    factors: list[HostFactors]

    @property
    def nbytes(self) -> int:
        """The bytes of its factors."""
        return sum(layer.nbytes for layer in self.factors)


class SelectedRequests(set[LoRARequest]):
    """The requests of a batch that `select` has set already."""


class PooledLoRAManager(MemberLoRAManager[PooledMember]):
    """Sets the table that the kernels read, and fills the pools."""

    _manager_cls = PooledModelManager

    def __init__(self, vllm_config: VllmConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(vllm_config, *args, **kwargs)
        self._ranks = RankPool(pool_size(self.lora_config))
        self._selected: object = None
        self._meter = StepTimes()
        self.uploads = 0
        """Adapters that were copied to the device."""

    @property
    def _wrapper(self) -> PooledPunicaWrapper:
        manager: PooledModelManager = self._adapter_manager
        return manager.wrapper

    def select(self, lora_requests: Sequence[LoRARequest | None], counts: RowCounts) -> None:
        """Set the next batch: the rows of its requests, one request after another, with its own weights."""
        paths = [r and r.lora_path for r in lora_requests]
        wanted = [self._residual(path) for path in paths]
        if (paths, counts.tokens) != self._selected:
            self._selected = paths, counts.tokens
            self._bring({name for members in wanted for name in members})
            self._wrapper.begin_batch(wanted, counts.tokens, self._ranks.rows)
        if self._meter.is_on:
            names = [r and r.lora_name for r in lora_requests]
            self._meter.step(CountedLoad.of(names, wanted, counts.tokens, len(names)))

    def _bring(self, names: set[str]) -> None:
        """Copy the adapters that are not on the device."""
        for name in sorted(names):
            if name in self._ranks:
                self._ranks.rows(name)
                continue
            member = self._member(name)
            rows = self._ranks.allocate(name, member.rank, names)
            for pool, factors in zip(self._wrapper.pools, member.factors, strict=True):
                pool.write(rows, factors)
            self.uploads += 1

    @override
    def unload(self, adapter: LoRARequest) -> None:
        super().unload(adapter)
        for component in components_of(adapter.lora_path):
            self._ranks.free(component.directory)
        self._selected = None

    @override
    def read_meter(self) -> dict[str, Any]:
        return self._meter.read()

    @override
    def fuse(self, components: Sequence[Component], embeddings_too: bool = True) -> None:
        self._fused = tuple(components)
        self._selected = None

    @override
    def set_active_adapters(self, requests: set[LoRARequest], mapping: LoRAMapping | None) -> None:
        """Only vLLM's runs without tokens change anything. `select` has set a real batch."""
        if not isinstance(requests, SelectedRequests):
            self._selected = None
            self._wrapper.begin_dummy_batch(is_active=bool(requests))

    @override
    def _build(self, directory: str, yielding: Yielding = iter) -> PooledMember:
        stack = self.reader.load_stack([Component(directory, 1.0)], self.lora_config.lora_dtype, yielding)
        if any(m.row_change is not None or m.bias is not None for m in stack.values()):
            raise ValueError("the kernels of this device apply no DoRA and no lora_bias")
        rank = rank_of(stack)
        lora = self._lora_model(1, {name: factors_only(m) for name, m in stack.items()}, rank)
        manager = self._adapter_manager
        manager._create_merged_loras_inplace(lora)
        pinned = self._wrapper.table.weights.device.type == "cuda"
        factors = []
        for name, layer in yielding(manager.modules.items()):
            weights = manager._get_lora_layer_weights(lora, name)
            pairs = [None] * layer.n_slices if weights is None else factors_of(layer, weights)
            pool = self._wrapper.pools[layer.lora_a_stacked]
            factors.append(HostFactors.of(pairs, rank, pool, pinned=pinned))
        return PooledMember(rank, factors)
