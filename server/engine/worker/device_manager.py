"""Chooses the LoRA manager of a device by vLLM's `--additional-config`.

`{"lora_kernels": "pooled"}` chooses the kernels of `server.engine.device`; the default is vLLM's own.
"""

from typing import Any

from vllm.config import VllmConfig

from lora_compose.server.engine.worker.composition_manager import CompositionLoRAManager
from lora_compose.server.engine.worker.lora_manager import StackingLoRAManager
from lora_compose.server.engine.worker.pooled_weights import PooledLoRAManager

OPTION = "lora_kernels"
MANAGERS: dict[str, type[CompositionLoRAManager[Any]]] = {
    "vllm": StackingLoRAManager,
    "pooled": PooledLoRAManager,
}


def device_manager(vllm_config: VllmConfig, *args: Any, **kwargs: Any) -> CompositionLoRAManager[Any]:
    """Replaces the class `LRUCacheWorkerLoRAManager`. Raises ValueError if the choice cannot be met."""
    chosen = kernels_of(vllm_config)
    if chosen == "pooled" and vllm_config.model_config.is_multimodal_model:
        raise ValueError(f"the model is multimodal, which {OPTION} {chosen!r} does not serve")
    return MANAGERS[chosen](vllm_config, *args, **kwargs)


def kernels_of(vllm_config: VllmConfig) -> str:
    """The chosen kernels."""
    config = vllm_config.additional_config
    chosen = config.get(OPTION, "vllm") if isinstance(config, dict) else "vllm"
    if chosen not in MANAGERS:
        raise ValueError(f"{OPTION} ({chosen!r}) must be one of {', '.join(MANAGERS)}")
    return str(chosen)
