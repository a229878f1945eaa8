"""Every part of vLLM that we override, in one table.

vLLM loads `install` in each of its processes through the `vllm.general_plugins` entry point. Everything else
uses upstream's own hooks (`worker_extension_cls`, `add_lora`/`remove_lora`). After an upgrade of vLLM,
`tests/server/engine/test_plugin.py` fails if the source that a row was written against has changed.
"""

import importlib
from dataclasses import dataclass, replace
from typing import Any

from vllm.platforms import current_platform

from lora_compose.server.engine.start_failure import report_start_failures

VLLM_VERSION = "0.32.0"


@dataclass(frozen=True)
class Override:
    """`replacement` replaces vLLM's `module:attribute`.

    It was written against `source` with that `sha256`."""

    module: str
    attribute: str
    replacement: str
    source: str
    sha256: str
    reason: str


WORKER_MANAGER = Override(
    module="vllm.v1.worker.lora_model_runner_mixin",
    attribute="LRUCacheWorkerLoRAManager",
    replacement="lora_compose.server.engine.worker.lora_manager:StackingLoRAManager",
    source="vllm.lora.worker_manager:LRUCacheWorkerLoRAManager",
    sha256="b46dd3eaaff82ef13b74933c23db9b39fd6144eb585d000043c460425133b932",
    reason="upstream has no hook to build an adapter from more than one directory",
)
CPU_MANAGER = replace(
    WORKER_MANAGER,
    replacement="lora_compose.server.engine.worker.runtime_weights:RuntimeWeightsLoRAManager",
    reason="if the kernels apply weights per row, only single adapters are built",
)
CPU_WRAPPER = Override(
    module="vllm.platforms.cpu",
    attribute="CpuPlatform.get_punica_wrapper",
    replacement="lora_compose.server.engine.cpu.punica_wrapper.GroupedPunicaWrapper",
    source="vllm.lora.punica_wrapper.punica_cpu:PunicaWrapperCPU",
    sha256="acc9bc9cf24eb2dbbcd0e4e2d3e01b007e3fafba3cf16fc2eba0571070afc30a",
    reason="upstream's CPU ops apply the last slot's adapter to base rows, and copy a matrix per token",
)
CPU_SELECTION = Override(
    module="vllm.v1.worker.lora_model_runner_mixin",
    attribute="LoRAModelRunnerMixin.set_active_loras",
    replacement="lora_compose.server.engine.worker.runner_methods:set_active_loras",
    source="vllm.v1.worker.lora_model_runner_mixin:LoRAModelRunnerMixin",
    sha256="518ded4105f79ddbd08370147b59cd9667b5a9569ccec337c9bcf35d431dd636",
    reason="upstream gives its LoRA manager only ids, but the weights are in the requests",
)
CPU_PROMPT_LOGPROBS = Override(
    module="vllm.v1.worker.gpu_model_runner",
    attribute="GPUModelRunner._get_prompt_logprobs_dict",
    replacement="lora_compose.server.engine.worker.runner_methods:prompt_logprobs",
    source="vllm.v1.worker.gpu_model_runner:GPUModelRunner",
    sha256="69a6a3c33fbbc93bba2d8fba0b0ad1f2a74d6190acbdfe19c1f5d9adb31514f3",
    reason="upstream applies the head's LoRA of the sampled rows to the rows of a prompt",
)
TOKEN_COUNT = Override(
    module="vllm.v1.engine.async_llm",
    attribute="AsyncLLM.generate",
    replacement="lora_compose.server.engine.frontend.token_accounting:count_tokens",
    source="vllm.v1.engine.async_llm:AsyncLLM.generate",
    sha256="5bd0ee90459b0e29348891b03548cdc31eef8c9218b3c416d5df4e5e14d1bca2",
    reason="the HTTP layer gets no usage if the client disconnects early; `launch` installs it on our client",
)
ENGINE_PROCESS = Override(
    module="vllm.v1.engine.utils",
    attribute="get_mp_context",
    replacement="lora_compose.server.engine.frontend.early_process:engine_context",
    source="vllm.utils.system_utils:get_mp_context",
    sha256="8b045a017577026e90790f9cddb8eb05ed195508934e5e1667ce3ae91d6a45d3",
    reason="upstream's engine on a CPU is a new interpreter, which imports vLLM only after the server has",
)
CPU_KV_CACHE = Override(
    module="vllm.v1.worker.gpu_model_runner",
    attribute="allocate_kv_cache",
    replacement="lora_compose.server.engine.worker.kv_cache:allocate_on_demand",
    source="vllm.v1.worker.utils:allocate_kv_cache",
    sha256="b1f3e24311485a090404f9ca264b1325cc0a965023221a46c18f45acf3c0ddfd",
    reason="upstream fills the whole cache with zeros at the start, which takes its memory and seconds",
)
OVERRIDES = (
    *(WORKER_MANAGER, CPU_MANAGER, CPU_WRAPPER, CPU_SELECTION, CPU_PROMPT_LOGPROBS, CPU_KV_CACHE),
    *(TOKEN_COUNT, ENGINE_PROCESS),
)


def install() -> None:
    """Install the overrides. Calling it again changes nothing."""
    report_start_failures()
    mixin = importlib.import_module(WORKER_MANAGER.module)
    if current_platform.is_cpu():
        type(current_platform).get_punica_wrapper = classmethod(lambda _: CPU_WRAPPER.replacement)
        setattr(mixin, WORKER_MANAGER.attribute, _replacement(CPU_MANAGER))
        mixin.LoRAModelRunnerMixin.set_active_loras = _replacement(CPU_SELECTION)
        runners = importlib.import_module(CPU_PROMPT_LOGPROBS.module)
        runners.GPUModelRunner._get_prompt_logprobs_dict = _replacement(CPU_PROMPT_LOGPROBS)
        runners.allocate_kv_cache = _replacement(CPU_KV_CACHE)
    else:
        setattr(mixin, WORKER_MANAGER.attribute, _replacement(WORKER_MANAGER))


def _replacement(override: Override) -> Any:
    module, _, name = override.replacement.partition(":")
    return getattr(importlib.import_module(module), name)
