"""Settings that a recipe leaves out: defaults for adapters, where those of TRL are for all weights.

Sources. "LoRA without regret" (Schulman et al., Thinking Machines Lab, 2025): adapters on all linear layers,
a learning rate of about ten times that of full fine-tuning, nearly independent of the rank because
lora_alpha is fixed, and batches below 32. TRL's own scripts give the learning rates with `use_peft`:
2e-4 for sft (2e-5 for all weights) and 5e-6 for dpo (5e-7); its script for kto says that the settings are
those of dpo.
"""

from typing import Any, Final, Literal

Method = Literal["sft", "dpo", "kto"]

AUTO: Final = "auto"
LARGEST_BATCH: Final = 32
"""Above this batch, an adapter learns worse than all weights do ("LoRA without regret")."""

_COMMON: Final[dict[str, Any]] = {
    "report_to": "none",
    "lora_target_modules": "all-linear",
    "use_peft": True,
    "save_total_limit": 2,
    "seed": 0,
}
_CPU: Final[dict[str, Any]] = {"bf16": False, "use_cpu": True, "gradient_checkpointing": False}
_BY_METHOD: Final[dict[Method, dict[str, Any]]] = {
    "sft": {"learning_rate": 2e-4},
    "dpo": {"learning_rate": 5e-6, "lora_dropout": 0.0},
    "kto": {"learning_rate": 5e-6, "lora_dropout": 0.0},
}
FULL_LEARNING_RATES: Final[dict[Method, float]] = {"sft": 2e-5, "dpo": 1e-6, "kto": 1e-6}
"""TRL's defaults, for all weights."""


def defaults_of(method: Method) -> dict[str, Any]:
    """The defaults on this machine, by the names of the options."""
    import torch

    return {**_COMMON, **_BY_METHOD[method], **({} if torch.cuda.is_available() else _CPU)}
