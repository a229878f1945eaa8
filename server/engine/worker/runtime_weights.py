"""The LoRA manager for kernels that apply weights per row. It builds only single adapters.

A request's spec names members and weights, and each row of a stack uses several members. So other weights, or
another choice of members that are in memory, need no build, no slot and no copy. Fusing needs none either: it
only changes the members and weights that a row needs.

vLLM gives its LoRA manager only LoRA ids. Requests for the same members at different weights share one id, so
their weights are read from the requests themselves, which only the model runner knows. `set_active_loras`
passes them to the manager.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
from typing_extensions import override
from vllm.lora.layers import LoRAMapping
from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA
from vllm.lora.lora_model import LoRAModel
from vllm.lora.lora_weights import LoRALayerWeights
from vllm.lora.request import LoRARequest
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from lora_compose.server.engine.cpu.batch import Members, share_rows
from lora_compose.server.engine.cpu.cost_meter import CountedLoad, Meter
from lora_compose.server.engine.cpu.embedding_layers import (
    GroupedEmbedding,
    GroupedLogitsProcessor,
    embedding_layers,
)
from lora_compose.server.engine.cpu.embedding_plan import EmbeddingPack
from lora_compose.server.engine.cpu.packed_factors import Pack, PackedPair, pack_layer
from lora_compose.server.engine.cpu.punica_wrapper import GroupedPunicaWrapper, Layer, Member
from lora_compose.server.engine.spec import SCHEME, Component, combined, decode_spec
from lora_compose.server.engine.worker.background_build import State
from lora_compose.server.engine.worker.composition_manager import (
    CompositionLoRAManager,
    CompositionLoRAModelManager,
)
from lora_compose.server.engine.worker.stacking import Yielding

_prompt_logprobs = GPUModelRunner._get_prompt_logprobs_dict
"""Upstream's method, before the plugin replaces it."""


@dataclass(frozen=True)
class RowCounts:
    """How many rows of the next batch each request has."""

    tokens: tuple[int, ...]
    """In the linear layers."""
    ids: tuple[int, ...]
    """In the input embedding: the tokens that the prompt gives as ids and not as embeddings."""
    sampled: tuple[int, ...]
    """In the output head."""


class RuntimeWeightsModelManager(CompositionLoRAModelManager):
    """LoRA for the input embedding and the output head too, without slots."""

    @override
    def _create_lora_modules(self) -> None:
        super()._create_lora_modules()
        for name, layer in embedding_layers(self.model, self.lora_config.target_modules):
            layer.set_mapping(self._get_punica_wrapper(name))
            self.register_module(name, layer)


class RuntimeWeightsLoRAManager(CompositionLoRAManager[Member]):
    """Keeps adapters by their directory in the store. vLLM's own adapter cache and slots stay empty."""

    _manager_cls = RuntimeWeightsModelManager
    runtime_weights = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._members: dict[str, Member] = {}
        self._fused_in_embeddings: tuple[Component, ...] = ()
        self._selected: object = None
        self._counted_load = CountedLoad.of((), (), ())
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
        wanted = self._wanted(paths, self._fused)
        in_embeddings = self._wanted(paths, self._fused_in_embeddings)
        batch = share_rows(wanted, counts.tokens)
        same = in_embeddings == wanted and counts.ids == counts.tokens
        ids = batch if same else share_rows(in_embeddings, counts.ids)
        head = share_rows(in_embeddings, counts.sampled)
        for wrapper in self._wrappers():
            wrapper.begin_batch(batch, self._member, self.meter)
            wrapper.begin_embedding(ids, self._member)
            wrapper.begin_head(head, self._member)
        names = [lora_request and lora_request.lora_name for lora_request in lora_requests]
        self._counted_load = CountedLoad.of(names, wanted, counts.tokens)

    @contextmanager
    def prompt_rows(self, lora_request: LoRARequest | None, count: int) -> Iterator[None]:
        """Let the head have `count` rows, all of this one request's prompt."""
        wanted = self._wanted([lora_request and lora_request.lora_path], self._fused_in_embeddings)
        for wrapper in self._wrappers():
            wrapper.begin_head(share_rows(wanted, [count]), self._member)
        try:
            yield
        finally:
            self._selected = None

    def _wanted(self, paths: Sequence[str | None], fused: Sequence[Component]) -> list[Members]:
        """The members of each request while the weights contain `fused`."""
        needed = {path: _needed(path, fused) for path in set(paths)}
        return [needed[path] for path in paths]

    @override
    def prepare(self, adapter: LoRARequest) -> tuple[State, str]:
        for component in decode_spec(adapter.lora_path):
            state, reason = self._prepare_member(component.directory)
            if state != "prepared":
                return state, reason
        return "prepared", ""

    def _prepare_member(self, directory: str) -> tuple[State, str]:
        if directory in self._members:
            return "prepared", ""
        build, keep = partial(self._build, directory), partial(self._members.__setitem__, directory)
        return self._advance(directory, build, keep)

    @override
    def unload(self, adapter: LoRARequest) -> None:
        for component in decode_spec(adapter.lora_path):
            self._builds.discard(component.directory)
            self._members.pop(component.directory, None)

    @override
    def read_meter(self) -> dict[str, Any]:
        return self.meter.read()

    @override
    def prepared(self) -> dict[str, Any]:
        sizes = {
            directory: sum(pack.nbytes for pack in member.values())
            for directory, member in self._members.items()
        }
        return {"bytes": sizes, "slots": []}

    @override
    def fuse(self, components: Sequence[Component], embeddings_too: bool) -> None:
        self._fused = tuple(components)
        self._fused_in_embeddings = self._fused if embeddings_too else ()
        self._selected = None

    @override
    def add_adapter(self, lora_request: LoRARequest) -> bool:
        return True

    @override
    def add_dummy_lora(self, lora_request: LoRARequest, rank: int) -> bool:
        return True

    @override
    def set_active_adapters(self, requests: set[LoRARequest], mapping: LoRAMapping | None) -> None:
        """Only vLLM's warm-up calls this. A real batch is set by `select`."""

    def _member(self, directory: str) -> Member:
        if directory not in self._members:
            # It was not prepared, or was unloaded too early. A build here is slow, but the answer is right.
            self._members[directory] = self._build(directory)
        return self._members[directory]

    def _build(self, directory: str, yielding: Yielding = iter) -> Member:
        lora = self._lora_model(1, [Component(directory, 1.0)], yielding)
        self._adapter_manager._create_merged_loras_inplace(lora)
        return dict(self._packed(lora, yielding))

    def _packed(self, lora: LoRAModel, yielding: Yielding) -> Iterator[tuple[Layer, Pack]]:
        for name, layer in yielding(self._adapter_manager.modules.items()):
            weights = self._adapter_manager._get_lora_layer_weights(lora, name)
            if weights is None:
                continue
            if isinstance(layer, GroupedEmbedding):
                yield id(layer), EmbeddingPack(weights.lora_a.contiguous(), weights.lora_b.contiguous())
                continue
            if isinstance(layer, GroupedLogitsProcessor):
                pair = PackedPair(lora_A=weights.lora_a, lora_B=weights.lora_b)
                yield id(layer.lora_a_stacked), pack_layer([pair], [len(pair.lora_B)])
                continue
            if not isinstance(layer, BaseLinearLayerWithLoRA):
                raise NotImplementedError(f"{name} ({type(layer).__name__}) does not support LoRA on CPUs")
            pack = pack_layer(factors_of(layer, weights), [b.shape[2] for b in layer.lora_b_stacked])
            if pack is not None:
                yield id(layer.lora_a_stacked), pack

    def _wrappers(self) -> list[GroupedPunicaWrapper]:
        return list(self._adapter_manager.punica_wrapper_mapping.values())


def _needed(lora_path: str | None, fused: Sequence[Component]) -> Members:
    wanted = decode_spec(lora_path) if lora_path and lora_path.startswith(SCHEME) else ()
    return {member.directory: member.weight for member in combined(wanted, fused)}


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


def set_active_loras(
    self: Any,
    input_batch: Any,
    num_scheduled_tokens: np.ndarray,
    num_sampled_tokens: np.ndarray | None = None,
    *_: object,
    **__: object,
) -> None:
    """Replaces `LoRAModelRunnerMixin.set_active_loras` for a `RuntimeWeightsLoRAManager`."""
    lora_requests = [self.requests[request_id].lora_request for request_id in input_batch.req_ids]
    tokens = tuple(num_scheduled_tokens.tolist())
    sampled = (1,) * len(tokens) if num_sampled_tokens is None else tuple(num_sampled_tokens.tolist())
    self.lora_manager.select(lora_requests, RowCounts(tokens, _embedded(self, tokens), sampled))


def _embedded(runner: Any, tokens: tuple[int, ...]) -> tuple[int, ...]:
    """How many of each request's tokens the model runner gives to the input embedding."""
    if not runner.enable_prompt_embeds or runner.supports_mm_inputs:
        return tokens
    ids = runner.is_token_ids.np[: sum(tokens)]
    ends = list(accumulate(tokens))
    return tuple(int(ids[end - count : end].sum()) for count, end in zip(tokens, ends, strict=True))


def prompt_logprobs(self: Any, hidden_states: Any, num_scheduled_tokens: dict[str, int]) -> dict[str, Any]:
    """Replaces `GPUModelRunner._get_prompt_logprobs_dict`: calls it for one request at a time.

    Upstream gives the head the rows of one request's prompt, and the head's LoRA would take them for the rows
    that the batch samples from."""
    if self.lora_config is None:
        return _prompt_logprobs(self, hidden_states, num_scheduled_tokens)
    pending: dict[str, int] = self.num_prompt_logprobs
    found: dict[str, Any] = {}
    for request_id in list(pending):
        self.num_prompt_logprobs = {request_id: pending[request_id]}
        request = self.requests[request_id]
        count = _prompt_rows(request, num_scheduled_tokens.get(request_id, 0))
        with self.lora_manager.prompt_rows(request.lora_request, count):
            found |= _prompt_logprobs(self, hidden_states, num_scheduled_tokens)
        if not self.num_prompt_logprobs:
            del pending[request_id]
    self.num_prompt_logprobs = pending
    return found


def _prompt_rows(request: Any, scheduled: int) -> int:
    """For how many of the `scheduled` tokens upstream computes the logits of the next prompt token."""
    following = len(request.prompt_token_ids or ()) - request.num_computed_tokens - 1
    return max(0, min(scheduled, following))
