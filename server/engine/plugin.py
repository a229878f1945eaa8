"""Every part of vLLM that we override, in one table.

vLLM loads `install` in each of its processes through the `vllm.general_plugins` entry point. Everything else
uses upstream's own hooks (`worker_extension_cls`, `add_lora`/`remove_lora`). After an upgrade of vLLM,
`tests/server/engine/test_plugin.py` fails if the source that a row was written against has changed.
"""

import importlib
from dataclasses import dataclass, replace
from operator import attrgetter
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
    replacement="lora_compose.server.engine.worker.device_manager:device_manager",
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
CPU_NORMS = Override(
    module="vllm.platforms.cpu",
    attribute="CpuPlatform.get_default_ir_op_priority",
    replacement="lora_compose.server.engine.cpu.norms:op_priority",
    source="vllm.platforms.interface:Platform.get_default_ir_op_priority",
    sha256="dcdd46c3c3266b130fe3de16f2d7380fce0758538a1f15c7650953896ccfbf2c",
    reason="upstream computes each RMS norm on CPUs with a chain of ten torch ops",
)
TOKEN_COUNT = Override(
    module="vllm.v1.engine.async_llm",
    attribute="AsyncLLM.generate",
    replacement="lora_compose.server.engine.frontend.token_accounting:count_tokens",
    source="vllm.v1.engine.async_llm:AsyncLLM.generate",
    sha256="5bd0ee90459b0e29348891b03548cdc31eef8c9218b3c416d5df4e5e14d1bca2",
    reason="the HTTP layer gets no usage if the client disconnects early; `launch` installs it on our client",
)
LORA_STATE = Override(
    module="vllm.v1.worker.lora_model_runner_mixin",
    attribute="LoRAModelRunnerMixin.load_lora_model",
    replacement="lora_compose.server.engine.worker.graph_choice:load_lora_model",
    source="vllm.v1.worker.gpu.lora_utils:LoraState",
    sha256="fdf0a8f3413ca4072c39c146211b77f7bbfcc43ce816828d815acb630225f587",
    reason="the V2 model runner chooses a CUDA graph by its requests' adapters, before our manager maps them",
)
V1_GRAPH = Override(
    module="vllm.v1.worker.gpu_model_runner",
    attribute="GPUModelRunner._determine_batch_execution_and_padding",
    replacement="lora_compose.server.engine.worker.graph_choice:choose_execution",
    source="vllm.v1.worker.gpu_model_runner:GPUModelRunner._determine_batch_execution_and_padding",
    sha256="8a022812851793da2454822184769ebfd6e28269295f3fc26270882b72523e19",
    reason="the V1 model runner does the same; `load_lora_model` replaces the method of its instance",
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
    *(WORKER_MANAGER, LORA_STATE, V1_GRAPH),
    *(CPU_MANAGER, CPU_WRAPPER, CPU_SELECTION, CPU_PROMPT_LOGPROBS, CPU_NORMS, CPU_KV_CACHE),
    *(TOKEN_COUNT, ENGINE_PROCESS),
)


def install() -> None:
    """Install the overrides. Calling it again changes nothing."""
    report_start_failures()
    if current_platform.is_cpu():
        install_for_cpus()
    else:
        install_for_devices()


def install_for_cpus() -> None:
    """The LoRA manager and the kernels for CPUs."""
    type(current_platform).get_punica_wrapper = classmethod(lambda _: CPU_WRAPPER.replacement)
    for override in (CPU_MANAGER, CPU_SELECTION, CPU_PROMPT_LOGPROBS, CPU_KV_CACHE):
        _put(override)
    importlib.import_module("lora_compose.server.engine.cpu.norms").register()
    priority = _replacement(CPU_NORMS)
    type(current_platform).get_default_ir_op_priority = classmethod(lambda _, config: priority(config))


def install_for_devices() -> None:
    """The LoRA manager for slots, and the choice of CUDA graphs."""
    for override in (WORKER_MANAGER, LORA_STATE):
        _put(override)


def _put(override: Override) -> None:
    path, _, name = override.attribute.rpartition(".")
    module = importlib.import_module(override.module)
    setattr(attrgetter(path)(module) if path else module, name, _replacement(override))


def _replacement(override: Override) -> Any:
    module, _, name = override.replacement.partition(":")
    return getattr(importlib.import_module(module), name)
