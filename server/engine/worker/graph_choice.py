"""Lets vLLM choose the CUDA graph of a batch by the adapters that its rows need added to the base weights.

vLLM captures graphs with and without LoRA kernels, and counts the adapters of a batch's requests to choose
one. While a composition is fused, that count is wrong in both directions: requests for the base need a
residual, and requests for the fused composition need nothing. Both model runners ask the LoRA manager here.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from typing_extensions import override
from vllm.lora.request import LoRARequest
from vllm.v1.worker.gpu.lora_utils import LoraState
from vllm.v1.worker.lora_model_runner_mixin import LoRAModelRunnerMixin

from lora_compose.server.engine.worker.composition_manager import CompositionLoRAManager
from lora_compose.server.engine.worker.member_manager import RowCounts
from lora_compose.server.engine.worker.pooled_weights import PooledLoRAManager, SelectedRequests

_load_lora_model = LoRAModelRunnerMixin.load_lora_model
"""Upstream's method, before the plugin replaces it."""

LoraInputs = tuple[tuple[int, ...], tuple[int, ...], set[LoRARequest]]
"""The LoRA id of each sampled row and of each token, and the requests with these ids."""


class NeededLoraState(LoraState):
    """The adapters of requests in the V2 model runner. It counts `get_activate_loras` to choose the graph."""

    def __init__(self, state: LoraState, manager: CompositionLoRAManager[Any]) -> None:
        self.__dict__.update(vars(state))
        self._manager = manager

    @override
    def get_activate_loras(self, req_ids: list[str]) -> set[LoRARequest]:
        return self._manager.needed([self.lora_requests.get(req_id) for req_id in req_ids])

    @override
    def make_lora_inputs(
        self, req_ids: list[str], idx_mapping: np.ndarray, num_scheduled_tokens: np.ndarray
    ) -> LoraInputs:
        """All requests of the batch, like upstream. The manager maps them, or sets the batch now."""
        prompts, tokens, _ = super().make_lora_inputs(req_ids, idx_mapping, num_scheduled_tokens)
        requests = super().get_activate_loras(req_ids)
        if not isinstance(self._manager, PooledLoRAManager):
            return prompts, tokens, requests
        counts = tuple(num_scheduled_tokens.tolist())
        rows = RowCounts(counts, counts, (1,) * len(counts))
        self._manager.select([self.lora_requests.get(req_id) for req_id in req_ids], rows)
        return prompts, tokens, SelectedRequests(requests)


def load_lora_model(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Replaces `LoRAModelRunnerMixin.load_lora_model`: this model runner then asks its LoRA manager.

    Only the V2 model runner has `lora_state`."""
    model = _load_lora_model(self, *args, **kwargs)
    if hasattr(self, "lora_state"):
        self.lora_state = NeededLoraState(self.lora_state, self.lora_manager)
    else:
        upstream = self._determine_batch_execution_and_padding
        self._determine_batch_execution_and_padding = partial(choose_execution, self, upstream)
        if isinstance(self.lora_manager, PooledLoRAManager):
            from lora_compose.server.engine.worker.runner_methods import set_active_loras

            self.set_active_loras = partial(set_active_loras, self)
    return model


def choose_execution(
    runner: Any,
    upstream: Callable[..., Any],
    *args: Any,
    force_has_lora: bool | None = None,
    force_num_active_loras: int | None = None,
    **kwargs: Any,
) -> Any:
    """Replaces the V1 model runner's `_determine_batch_execution_and_padding`.

    Its dummy runs give both numbers themselves."""
    if force_has_lora is None and force_num_active_loras is None:
        # By request, and not by LoRA id: requests with one id may have different weights.
        requests = [runner.requests[request_id].lora_request for request_id in runner.input_batch.req_ids]
        force_num_active_loras = len(runner.lora_manager.needed(requests))
    forced = {"force_has_lora": force_has_lora, "force_num_active_loras": force_num_active_loras}
    return upstream(*args, **forced, **kwargs)
