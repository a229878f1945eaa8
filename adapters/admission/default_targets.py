"""PEFT's default for a config without `target_modules`: a list for each model type, such as "llama"."""

from dataclasses import replace

from lora_compose.adapters.errors import AdapterRejected, Code
from lora_compose.adapters.peft.config import AdapterConfig


def with_default_targets(config: AdapterConfig, model_type: str | None) -> AdapterConfig:
    """`config` with the `target_modules` that PEFT gives it on a base of this type.

    Raises AdapterRejected("bad_adapter_config") if PEFT has no default for the type."""
    if config.raw.get("target_modules") is not None:
        return config
    # PEFT takes seconds to import. Almost every config has the field.
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as DEFAULTS

    default = DEFAULTS.get(model_type)
    if default is None:
        message = (
            f"adapter_config.json: target_modules is missing, and PEFT has no default for {model_type!r}, "
            "the type of this base. Name the modules that the weights adapt."
        )
        raise AdapterRejected(Code.BAD_ADAPTER_CONFIG, message, "target_modules")
    targets = default if isinstance(default, str) else list(default)
    return replace(config, raw=config.raw | {"target_modules": targets})
