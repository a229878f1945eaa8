"""What is installed, and whether vLLM's compiled code runs on this device."""

import platform
from importlib.metadata import version
from typing import Any

import torch
import transformers
import vllm

from lora_compose.benchmarks.gpu.run import CheckRun
from lora_compose.server.engine.frontend import inspection


def versions(run: CheckRun) -> None:
    """One finding."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": version("triton"),
        "transformers": transformers.__version__,
        "vllm": vllm.__version__,
        "vllm_device": inspection.device(),
        "changed_overrides": inspection.changed_overrides(),
    }
    run.say("versions", ok=True, **found, **({} if run.on_cpu else _compiled_code()))


def _compiled_code() -> dict[str, Any]:
    from vllm.vllm_flash_attn import flash_attn_interface as flash

    return {
        "gpu": torch.cuda.get_device_name(),
        "fa3": flash.FA3_AVAILABLE,
        "fa3_reason": flash.FA3_UNAVAILABLE_REASON,
        "rms_norm_kernel": _rms_norm_is_right(),
    }


def _rms_norm_is_right() -> bool:
    """One of vLLM's compiled kernels: does the thinned library hold code for this device?"""
    x = torch.randn(4, 256, device="cuda", dtype=torch.bfloat16)
    out, weight = torch.empty_like(x), torch.ones(256, device="cuda", dtype=torch.bfloat16)
    torch.ops._C.rms_norm(out, x, weight, 1e-5)
    expected = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-5)
    return bool((out.float() - expected).abs().max() < 0.05)
