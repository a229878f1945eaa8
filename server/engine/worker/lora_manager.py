"""The LoRA manager for slots that hold factors, as on GPUs. A stack is one adapter with weights folded in.

It differs from vLLM's manager in two points. An adapter takes a slot only when a batch needs it, so adding
one never evicts an adapter of a running batch. Adapters survive a reload of the base weights.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from typing_extensions import override
from vllm.lora.layers import LoRAMapping
from vllm.lora.lora_model import LoRAModel
from vllm.lora.request import LoRARequest

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.server.engine.cpu.cost_meter import CountedLoad
from lora_compose.server.engine.spec import Component, combined, decode_spec, is_spec
from lora_compose.server.engine.worker.background_build import State
from lora_compose.server.engine.worker.composition_manager import (
    BASE_RESIDUAL,
    CompositionLoRAManager,
)
from lora_compose.server.engine.worker.stacking import Yielding, factors_only, rank_of
from lora_compose.server.engine.worker.step_times import StepTimes

logger = logging.getLogger(__name__)


class StackingLoRAManager(CompositionLoRAManager[LoRAModel]):
    """Keeps stacks, with their weights folded in, in vLLM's slots."""

    runtime_weights = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._specs: dict[int, str] = {}
        """The spec of every adapter that was added and not unloaded since, by LoRA id."""
        self._meter = StepTimes()

    @override
    def prepare(self, adapter: LoRARequest) -> tuple[State, str]:
        lora_int_id, spec = adapter.lora_int_id, adapter.lora_path
        if self._needs_nothing(spec):
            self._specs[lora_int_id] = spec
        if lora_int_id in self.list_adapters() or self._needs_nothing(spec):
            return "prepared", ""
        return self._advance(
            lora_int_id, partial(self._build, lora_int_id, spec), lambda lora: self._keep(lora, spec)
        )

    @override
    def unload(self, adapter: LoRARequest) -> None:
        self._builds.discard(adapter.lora_int_id)
        self._specs.pop(adapter.lora_int_id, None)
        self.remove_adapter(adapter.lora_int_id)

    @override
    def prepared(self) -> dict[str, Any]:
        adapters = self._adapter_manager.list_adapters()
        sizes = {str(lora_int_id): _size(lora) for lora_int_id, lora in adapters.items()}
        return {"bytes": sizes, "slots": list(self._adapter_manager.lora_index_to_id)}

    @override
    def read_meter(self) -> dict[str, Any]:
        return self._meter.read()

    @override
    def fuse(self, components: Sequence[Component], embeddings_too: bool = True) -> None:
        """Build every adapter again for the new base. No adapter here changes an embedding.

        An adapter that cannot be built is left out, because the base weights are right without it. A rank may
        be too high: no request uses such an adapter before the next switch."""
        self._fused = tuple(components)
        self._builds.clear()
        self.remove_all_adapters()
        self._specs.pop(BASE_RESIDUAL.lora_int_id, None)
        for lora_int_id, spec in list(self._specs.items()):
            try:
                self.add_adapter(LoRARequest(f"prepared {lora_int_id}", lora_int_id, spec))
            except (ValueError, OSError, LoraComposeError) as error:
                logger.info("adapter %d is not built while this composition is fused: %s", lora_int_id, error)

    @override
    def add_adapter(self, lora_request: LoRARequest) -> bool:
        """Add the prepared build. If the build failed, raises its exception and changes nothing."""
        lora_int_id, spec = lora_request.lora_int_id, lora_request.lora_path
        if self._needs_nothing(spec):
            self._specs[lora_int_id] = spec
            return True
        if lora_int_id in self.list_adapters():
            return bool(self._adapter_manager.get_adapter(lora_int_id))
        return self._keep(self._builds.take(lora_int_id) or self._build(lora_int_id, spec), spec)

    @override
    def set_active_adapters(self, requests: set[LoRARequest], mapping: LoRAMapping | None) -> None:
        """Like the upstream method, with one change.

        While a composition is fused, its own rows need no LoRA, and the base's rows need one."""
        if mapping is not None and not any(map(_is_dummy, requests)):
            self._meter_step(requests, mapping)
            needed = self.needed({*requests, *([None] if 0 in mapping.index_mapping else [])})
            ids = dict.fromkeys((r.lora_int_id for r in requests - needed), 0)
            if BASE_RESIDUAL in needed:
                ids[0] = BASE_RESIDUAL.lora_int_id
            requests = needed
            mapping = replace(
                mapping,
                index_mapping=tuple(ids.get(i, i) for i in mapping.index_mapping),
                prompt_mapping=tuple(ids.get(i, i) for i in mapping.prompt_mapping),
            )
        super().set_active_adapters(requests, mapping)

    def _needs_nothing(self, path: str) -> bool:
        return is_spec(path) and not self._residual(path)

    def _meter_step(self, requests: set[LoRARequest], mapping: LoRAMapping) -> None:
        if not self._meter.is_on:
            return
        known = {r.lora_int_id: (r.lora_name, r.lora_path) for r in requests}
        counts = Counter(mapping.index_mapping)
        names_and_paths = [known.get(lora_int_id, (None, BASE_RESIDUAL.lora_path)) for lora_int_id in counts]
        members = [self._residual(path) for _, path in names_and_paths]
        names = [name for name, _ in names_and_paths]
        load = CountedLoad.of(names, members, list(counts.values()), len(mapping.prompt_mapping))
        self._meter.step(load)

    @override
    def _apply_adapters(self, lora_requests: set[LoRARequest]) -> None:
        """Give every adapter of the next batch a slot.

        Adapters that have one come first, so that they keep it."""
        manager = self._adapter_manager
        if len(lora_requests) > manager.lora_slots:
            raise RuntimeError(
                f"a batch has {len(lora_requests)} adapters, but there are {manager.lora_slots} slots"
            )
        wanted = sorted(lora_requests, key=lambda r: r.lora_int_id not in manager._active_adapters)
        for lora_request in wanted:
            self.add_adapter(lora_request)
            manager.activate_adapter(lora_request.lora_int_id)

    def _keep(self, lora: LoRAModel, spec: str) -> bool:
        """Add it to host memory. If that is full, the least recently used adapter is removed."""
        if len(self._adapter_manager) + 1 > self._adapter_manager.capacity:
            self._adapter_manager.remove_oldest_adapter()
        self._specs[lora.id] = spec
        return bool(self._adapter_manager.add_adapter(lora))

    def _build(self, lora_int_id: int, spec: str, yielding: Yielding = iter) -> LoRAModel:
        components = combined(decode_spec(spec), self._fused)
        stack = self.reader.load_stack(components, self.lora_config.lora_dtype, yielding)
        if any(m.row_change is not None or m.bias is not None for m in stack.values()):
            raise ValueError("the kernels of this device apply no DoRA and no lora_bias")
        pairs = {name: factors_only(m) for name, m in stack.items()}
        return self._lora_model(lora_int_id, pairs, rank_of(stack))


def _size(lora: LoRAModel) -> int:
    factors = [factor for layer in lora.loras.values() for factor in (layer.lora_a, layer.lora_b)]
    tensors = [t for factor in factors for t in (factor if isinstance(factor, list) else [factor])]
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def _is_dummy(lora_request: LoRARequest) -> bool:
    """Whether vLLM made the request for a run without tokens. Its adapter is in a slot already."""
    return not is_spec(lora_request.lora_path)
