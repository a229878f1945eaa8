"""What lets a CPU rehearse the checks. Each function changes this process only, before an engine starts."""

import importlib
import os
from types import SimpleNamespace


def take_device_branch() -> None:
    """Let the plugin install the LoRA manager that it installs on GPUs.

    The LoRA kernels are then upstream's for CPUs, which misread base rows of mixed batches.
    """
    from lora_compose.server.engine import plugin

    vars(plugin)["install"] = plugin.install_for_devices


def interpret_kernels() -> None:
    """Let Triton's interpreter run vLLM's LoRA kernels. Call it before anything imports vLLM.

    A CPU build of vLLM uses Triton only if Triton has a backend for CPUs. The interpreter needs none.
    """
    os.environ["TRITON_INTERPRET"] = "1"
    backends = importlib.import_module("triton.backends").backends
    backends["cpu"] = SimpleNamespace(driver=SimpleNamespace(is_active=lambda: False))
