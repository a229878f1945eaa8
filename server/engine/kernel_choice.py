"""Which LoRA kernels a GPU runs, by vLLM's `--additional-config`: `{"lora_kernels": "pooled"}` for ours."""

from typing import Literal, get_args

OPTION = "lora_kernels"
LoraKernels = Literal["vllm", "pooled"]
"""vLLM's own, with a slot for each composition; or those of `server.engine.device`."""


def chosen_kernels(additional_config: object) -> LoraKernels:
    """The choice in vLLM's `additional_config`; the default is "vllm". Raises ValueError for another."""
    chosen = additional_config.get(OPTION, "vllm") if isinstance(additional_config, dict) else "vllm"
    for known in get_args(LoraKernels):
        if chosen == known:
            return known
    raise ValueError(f"{OPTION} ({chosen!r}) must be one of {', '.join(get_args(LoraKernels))}")
