"""The LoRA manager for CPUs, whose kernels apply weights per row (see `member_manager`).

Fusing needs no build either: it only changes the members and weights that a row needs. `runner_methods`
passes the requests of each batch to the manager.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from typing_extensions import override
from vllm.config import VllmConfig
from vllm.lora.layers import LoRAMapping
from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA
from vllm.lora.lora_weights import LoRALayerWeights
from vllm.lora.request import LoRARequest
from vllm.model_executor.layers.linear import RowParallelLinear

from lora_compose.server.engine.cpu.batch import Members, Need, Work, share_rows
from lora_compose.server.engine.cpu.cost_meter import CountedLoad, Meter
from lora_compose.server.engine.cpu.embedding_layers import (
    GroupedEmbedding,
    GroupedLogitsProcessor,
    embedding_layers,
    padded,
)
from lora_compose.server.engine.cpu.packed_factors import EmbeddingPack, Pack, PackedPair, pack_layer
from lora_compose.server.engine.cpu.plans import Layer, Member
from lora_compose.server.engine.cpu.punica_wrapper import GroupedPunicaWrapper
from lora_compose.server.engine.spec import Component, combined, components_of
from lora_compose.server.engine.worker.composition_manager import CompositionLoRAModelManager
from lora_compose.server.engine.worker.member_manager import MemberLoRAManager, RowCounts
from lora_compose.server.engine.worker.stacking import Yielding, factors_only, rank_of
from lora_compose.server.engine.worker.vectors import split_vectors, with_vectors


class RuntimeWeightsModelManager(CompositionLoRAModelManager):
    """LoRA for the input embedding and the output head too, without slots."""

    @override
    def _create_lora_modules(self) -> None:
        super()._create_lora_modules()
        for name, layer in embedding_layers(self.model, self.lora_config.target_modules):
            layer.set_mapping(self._get_punica_wrapper(name))
            self.register_module(name, layer)


class RuntimeWeightsLoRAManager(MemberLoRAManager[Member]):
    """Gives the kernels the work of each batch, in the linear layers, the input embedding and the head."""

    _manager_cls = RuntimeWeightsModelManager

    def __init__(self, vllm_config: VllmConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(vllm_config, *args, **kwargs)
        self._quantization = vllm_config.model_config.quantization
        self._fused_in_embeddings: tuple[Component, ...] = ()
        self._selected: object = None
        self._counted_load = CountedLoad.of((), (), (), 0)
        self.meter = Meter()

    def select(self, lora_requests: Sequence[LoRARequest | None], counts: RowCounts) -> None:
        """Set the next batch: the rows of its requests, one request after another, with its own weights."""
        selected = [r and r.lora_path for r in lora_requests], counts
        if selected != self._selected:
            self._selected = selected
            self._begin_batch(lora_requests, *selected)
        if self.meter.is_on:
            self.meter.step(self._counted_load)

    def _begin_batch(
        self, lora_requests: Sequence[LoRARequest | None], paths: Sequence[str | None], counts: RowCounts
    ) -> None:
        needs = self._needs(paths, self._fused)
        work = Work.of(needs, counts.tokens)
        deltas = {
            path: _weights(combined(components_of(path), self._fused_in_embeddings)) for path in set(paths)
        }
        ids = share_rows([deltas[path] for path in paths], counts.ids)
        head = Work.of(self._needs(paths, self._fused_in_embeddings), counts.sampled)
        for wrapper in self._wrappers():
            wrapper.begin_batch(work, self._member, self.meter)
            wrapper.begin_embedding(ids, self._member)
            wrapper.begin_head(head, self._member)
        names = [lora_request and lora_request.lora_name for lora_request in lora_requests]
        members = [need.members for need in needs]
        self._counted_load = CountedLoad.of(names, members, counts.tokens, len(names))

    @contextmanager
    def prompt_rows(self, lora_request: LoRARequest | None, count: int) -> Iterator[None]:
        """Let the head have `count` rows, all of this one request's prompt."""
        path = lora_request and lora_request.lora_path
        head = Work.of(self._needs([path], self._fused_in_embeddings), [count])
        for wrapper in self._wrappers():
            wrapper.begin_head(head, self._member)
        try:
            yield
        finally:
            self._selected = None

    def _needs(self, paths: Sequence[str | None], fused: Sequence[Component]) -> list[Need]:
        needed = {path: self._need(components_of(path), fused) for path in set(paths)}
        return [needed[path] for path in paths]

    def _need(self, components: Sequence[Component], fused_components: Sequence[Component]) -> Need:
        """The work for a composition in layers whose weights contain `fused_components`.

        Fused weights are `(1 + d) W + L`: d from DoRA, L low-rank. If the request has another d, L is
        subtracted, the rows are scaled to its d, and its own L is added. Otherwise only the difference of the
        factors is added. Biases are never fused."""
        wanted, fused = _weights(combined(components, ())), _weights(combined(fused_components, ()))
        scaling = {name: weight for name, weight in wanted.items() if self._member(name).scales}
        fused_scaling = {name: weight for name, weight in fused.items() if self._member(name).scales}
        shifting = {name: weight for name, weight in wanted.items() if self._member(name).shifts}
        if scaling == fused_scaling:
            return Need(_weights(combined(components, fused_components)), scaled_by=shifting)
        before = {name: -weight for name, weight in fused.items()}
        return Need(wanted, before, scaled_by=scaling | shifting, fused=fused_scaling)

    @override
    def read_meter(self) -> dict[str, Any]:
        return self.meter.read()

    @override
    def fuse(self, components: Sequence[Component], embeddings_too: bool = True) -> None:
        self._fused = tuple(components)
        self._fused_in_embeddings = self._fused if embeddings_too else ()
        self._selected = None

    @override
    def set_active_adapters(self, requests: set[LoRARequest], mapping: LoRAMapping | None) -> None:
        """Only vLLM's warm-up calls this. A real batch is set by `select`."""

    @override
    def _build(self, directory: str, yielding: Yielding = iter) -> Member:
        components = [Component(directory, 1.0)]
        stack = self.reader.load_stack(components, self.lora_config.lora_dtype, yielding)
        scales = any(module.row_change is not None for module in stack.values())
        shifts = any(module.bias is not None for module in stack.values())
        if scales and self._quantization is not None:
            raise ValueError(
                f"the base is quantized ({self._quantization}), and DoRA needs its exact weights"
            )
        has_vectors = scales or shifts
        pairs = {name: with_vectors(m) if has_vectors else factors_only(m) for name, m in stack.items()}
        lora = self._lora_model(1, pairs, rank_of(stack))
        self._adapter_manager._create_merged_loras_inplace(lora)
        packs: dict[Layer, Pack] = {}
        embeddings: dict[Layer, EmbeddingPack] = {}
        for name, layer in yielding(self._adapter_manager.modules.items()):
            weights = self._adapter_manager._get_lora_layer_weights(lora, name)
            if weights is None:
                continue
            if isinstance(layer, GroupedEmbedding):  # it has no vectors: theirs are ranks of zeros
                embeddings[id(layer)] = EmbeddingPack(
                    weights.lora_a.contiguous(), weights.lora_b.contiguous()
                )
            elif (pack := _packed(name, layer, weights, has_vectors)) is not None:
                packs[id(layer.lora_a_stacked)] = pack
        return Member(packs, embeddings, scales, shifts)

    def _wrappers(self) -> list[GroupedPunicaWrapper]:
        return list(self._adapter_manager.punica_wrapper_mapping.values())


def _packed(name: str, layer: Any, weights: LoRALayerWeights, has_vectors: bool) -> Pack | None:
    """The factors for a linear layer or the head; None if all its slices lack them."""
    base_bias: tuple[torch.Tensor | None, bool]
    if isinstance(layer, GroupedLogitsProcessor):
        factors: list[PackedPair | None] = [
            PackedPair(lora_A=weights.lora_a, lora_B=padded(weights.lora_b, layer.width))
        ]
        widths, base_bias = [layer.width], (layer.bias, True)
    elif isinstance(layer, BaseLinearLayerWithLoRA):
        factors, widths = factors_of(layer, weights), [b.shape[2] for b in layer.lora_b_stacked]
        base_bias = base_bias_of(layer)
    else:
        raise NotImplementedError(f"{name} ({type(layer).__name__}) does not support LoRA on CPUs")
    terms = None
    if has_vectors:
        factors, terms = split_vectors(factors, widths, *base_bias)
    return pack_layer(factors, widths, terms)


def base_bias_of(layer: BaseLinearLayerWithLoRA) -> tuple[torch.Tensor | None, bool]:
    """The bias of the base layer, if its output has it; and whether this worker adds an adapter's bias.

    The outputs of a row-parallel layer are summed over the workers, so only the first adds biases."""
    base = layer.base_layer
    if isinstance(base, RowParallelLinear) and layer.tp_rank > 0:
        return None, False
    return (None if base.skip_bias_add or base.bias is None else base.bias.detach().float().clone()), True


def _weights(components: Sequence[Component]) -> Members:
    return {component.directory: component.weight for component in components}


def factors_of(layer: BaseLinearLayerWithLoRA, weights: LoRALayerWeights) -> list[PackedPair | None]:
    """One pair per slice of the layer, limited to this worker's share, as `set_lora` would copy them to a
    slot."""
    lora_a, lora_b = weights.lora_a, weights.lora_b
    if isinstance(lora_b, list) and len(lora_b) != layer.n_slices:
        lora_a, lora_b = layer.expand_packed_lora(lora_a, lora_b)
    if layer.tp_size > 1:
        lora_a, lora_b = layer.slice_lora_a(lora_a), layer.slice_lora_b(lora_b)
    if not isinstance(lora_b, list):
        lora_a, lora_b = [lora_a], [lora_b]
    return [
        None if a is None else PackedPair(lora_A=a, lora_B=b) for a, b in zip(lora_a, lora_b, strict=True)
    ]
