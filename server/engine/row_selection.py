"""Tells the LoRA manager which request each row of a batch belongs to, so that it can weigh the rows.

vLLM hands its LoRA manager only LoRA ids. Requests for the same members at different weights share one id, so
their weights have to come from the requests themselves, which only the model runner knows.
"""

from typing import Any

import numpy as np


def set_active_loras(
    self: Any,
    input_batch: Any,
    num_scheduled_tokens: np.ndarray,
    *_: object,
    **__: object,
) -> None:
    """In place of `LoRAModelRunnerMixin.set_active_loras`, for a `RuntimeWeightsLoRAManager`."""
    lora_requests = [self.requests[request_id].lora_request for request_id in input_batch.req_ids]
    self.lora_manager.select(lora_requests, num_scheduled_tokens)
