"""Makes the LoRA manager of a device (see `kernel_choice`)."""

from typing import Any

from vllm.config import VllmConfig

from lora_compose.server.engine.kernel_choice import OPTION, chosen_kernels
from lora_compose.server.engine.worker.composition_manager import CompositionLoRAManager
from lora_compose.server.engine.worker.lora_manager import StackingLoRAManager
from lora_compose.server.engine.worker.pooled_weights import PooledLoRAManager


def device_manager(vllm_config: VllmConfig, *args: Any, **kwargs: Any) -> CompositionLoRAManager[Any]:
    """Replaces the class `LRUCacheWorkerLoRAManager`. Raises ValueError if the choice cannot be met."""
    if chosen_kernels(vllm_config.additional_config) == "vllm":
        return StackingLoRAManager(vllm_config, *args, **kwargs)
    if vllm_config.model_config.is_multimodal_model:
        raise ValueError(f"{OPTION} 'pooled' does not serve multimodal models. Leave it out.")
    return PooledLoRAManager(vllm_config, *args, **kwargs)
