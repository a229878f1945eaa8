"""Facts about the installed vLLM, for `lora-compose doctor`. Starts no engine."""

import hashlib
import importlib
import inspect
from operator import attrgetter

import vllm
from vllm import ModelRegistry
from vllm.model_executor.models.interfaces import supports_lora
from vllm.model_executor.models.interfaces_base import is_text_generation_model
from vllm.platforms import current_platform

from lora_compose.server.engine.plugin import OVERRIDES, Override

ONLY_PRODUCTS = "the LoRA kernels of this device add only low-rank products"


def refused_fields(*, scales_rows: bool) -> dict[str, str]:
    """The fields of an adapter's config that the kernels cannot serve, and why not.

    `scales_rows`: whether they scale and shift the rows of a layer's output. Only those for CPUs do."""
    return {} if scales_rows else dict.fromkeys(("use_dora", "lora_bias"), ONLY_PRODUCTS)


def vllm_version() -> str:
    """The version of the imported package, with its build."""
    return str(vllm.__version__)


def device() -> str:
    """The device that vLLM would use here, such as "cpu" or "cuda". Empty if it finds none."""
    return str(current_platform.device_type or "")


def source_digest(override: Override) -> str:
    """sha256 of the upstream source that a row of `OVERRIDES` was written against, as it is installed."""
    module, _, name = override.source.partition(":")
    source = inspect.getsource(attrgetter(name)(importlib.import_module(module)))
    return hashlib.sha256(source.encode()).hexdigest()


def changed_overrides() -> list[str]:
    """The upstream parts whose source differs from the source that our replacements were written against."""
    return sorted({row.source for row in OVERRIDES if _has_changed(row)})


def _has_changed(override: Override) -> bool:
    try:
        attrgetter(override.attribute)(importlib.import_module(override.module))
        return source_digest(override) != override.sha256
    except (ImportError, AttributeError):
        return True


def knows(architecture: str) -> bool:
    """True if vLLM has a model class of that name."""
    return architecture in ModelRegistry.get_supported_archs()


def takes_lora(architecture: str) -> bool:
    """True if that class supports LoRA. Imports it."""
    return bool(supports_lora(ModelRegistry.models[architecture].load_model_cls()))


def generates(architecture: str) -> bool:
    """True if that class generates text. False if it only embeds or classifies."""
    return bool(is_text_generation_model(ModelRegistry.models[architecture].load_model_cls()))
