"""What we override in vLLM, all of it, in one table.

vLLM loads `install` in each of its processes through the `vllm.general_plugins` entry point. Upstream's own
hooks do the rest (`worker_extension_cls`, `add_lora`/`remove_lora`). `tests/server/engine/test_plugin.py`
compares the upstream source each row was written against, and fails loudly after an upgrade.
"""

import importlib
from dataclasses import dataclass

from vllm.platforms import current_platform

VLLM_VERSION = "0.32.0"


@dataclass(frozen=True)
class Override:
    """`module:attribute` of vLLM is replaced by `replacement`, written against upstream source `sha256`."""

    module: str
    attribute: str
    replacement: str
    source: str
    sha256: str
    reason: str


WORKER_MANAGER = Override(
    module="vllm.v1.worker.lora_model_runner_mixin",
    attribute="LRUCacheWorkerLoRAManager",
    replacement="server.engine.lora_manager:CompositionWorkerLoRAManager",
    source="vllm.lora.worker_manager:LRUCacheWorkerLoRAManager",
    sha256="b46dd3eaaff82ef13b74933c23db9b39fd6144eb585d000043c460425133b932",
    reason="no hook lets a worker build an adapter from anything but one directory",
)
CPU_WRAPPER = Override(
    module="vllm.platforms.cpu",
    attribute="CpuPlatform.get_punica_wrapper",
    replacement="server.engine.cpu_lora.GroupedPunicaWrapper",
    source="vllm.lora.punica_wrapper.punica_cpu:PunicaWrapperCPU",
    sha256="acc9bc9cf24eb2dbbcd0e4e2d3e01b007e3fafba3cf16fc2eba0571070afc30a",
    reason="upstream's CPU ops give base rows the last slot's adapter, and copy a matrix per token",
)
OVERRIDES = (WORKER_MANAGER, CPU_WRAPPER)


def install() -> None:
    """Put the overrides in place; calling it again changes nothing."""
    module_name, _, class_name = WORKER_MANAGER.replacement.partition(":")
    manager = getattr(importlib.import_module(module_name), class_name)
    setattr(importlib.import_module(WORKER_MANAGER.module), WORKER_MANAGER.attribute, manager)
    if current_platform.is_cpu():
        type(current_platform).get_punica_wrapper = classmethod(lambda _: CPU_WRAPPER.replacement)
