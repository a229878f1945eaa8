"""Methods of vLLM's model runner: they give a `RuntimeWeightsLoRAManager` the rows of each batch."""

from itertools import accumulate
from typing import Any

import numpy as np
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from lora_compose.server.engine.worker.member_manager import RowCounts

_prompt_logprobs = GPUModelRunner._get_prompt_logprobs_dict
"""Upstream's method, before the plugin replaces it."""


def set_active_loras(
    self: Any,
    input_batch: Any,
    num_scheduled_tokens: np.ndarray,
    num_sampled_tokens: np.ndarray | None = None,
    *_: object,
    **__: object,
) -> None:
    """Replaces `LoRAModelRunnerMixin.set_active_loras`."""
    lora_requests = [self.requests[request_id].lora_request for request_id in input_batch.req_ids]
    tokens = tuple(num_scheduled_tokens.tolist())
    sampled = (1,) * len(tokens) if num_sampled_tokens is None else tuple(num_sampled_tokens.tolist())
    self.lora_manager.select(lora_requests, RowCounts(tokens, _embedded(self, tokens), sampled))


def _embedded(runner: Any, tokens: tuple[int, ...]) -> tuple[int, ...]:
    """How many of each request's tokens the model runner gives to the input embedding."""
    if not runner.enable_prompt_embeds or runner.supports_mm_inputs:
        return tokens
    ids = runner.is_token_ids.np[: sum(tokens)]
    return tuple(
        int(ids[end - count : end].sum()) for count, end in zip(tokens, accumulate(tokens), strict=True)
    )


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
