"""vLLM's own C++ RMS norms, made available to vLLM's model code on CPUs.

The CPU build has them, but registers them as implementations of its `ir` ops only for GPUs. Its default on
CPUs is a chain of about ten torch ops, which takes 14 to 20 µs for eight rows in place of 2.5 µs. A model
calls it twice a layer. vLLM compares the names of all parameters, also of those that are not used here.
"""

import torch
from vllm import ir
from vllm.config import VllmConfig
from vllm.config.kernel import IrOpPriorityConfig
from vllm.platforms import current_platform

PROVIDER = "lora_compose_cpu"
LANES = 16
"""The C++ code reads whole vectors of up to this many numbers, and checks no bounds."""


def _fits(x: torch.Tensor, weight: torch.Tensor | None, variance_size: int | None) -> bool:
    if weight is None or variance_size is not None or weight.dtype != x.dtype:
        return False
    return x.dtype in {torch.float32, torch.bfloat16} and x.is_contiguous() and x.shape[-1] % LANES == 0


def _fits_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    epsilon: float,  # noqa: ARG001
    variance_size: int | None = None,
) -> bool:
    return _fits(x, weight, variance_size)


def _fits_sum(
    x: torch.Tensor,
    x_residual: torch.Tensor,
    weight: torch.Tensor | None,
    epsilon: float,  # noqa: ARG001
    variance_size: int | None = None,
) -> bool:
    same = x_residual.dtype == x.dtype and x_residual.shape == x.shape
    return same and x_residual.is_contiguous() and _fits(x, weight, variance_size)


def rms_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    epsilon: float,
    variance_size: int | None = None,  # noqa: ARG001
) -> torch.Tensor:
    """`weight · x / √(mean(x²) + ε)` for each row. Called only if `_fits_norm`."""
    output = torch.empty_like(x)
    torch.ops._C.rms_norm(output, x, weight, epsilon)
    return output


def fused_add_rms_norm(
    x: torch.Tensor,
    x_residual: torch.Tensor,
    weight: torch.Tensor | None,
    epsilon: float,
    variance_size: int | None = None,  # noqa: ARG001
) -> tuple[torch.Tensor, torch.Tensor]:
    """`x_residual += x`, then `x = rms_norm(x_residual)`, both in place. Called only if `_fits_sum`."""
    torch.ops._C.fused_add_rms_norm(x, x_residual, weight, epsilon)
    return x, x_residual


def register() -> None:
    """Add both to vLLM's implementations. Calling it again changes nothing."""
    if PROVIDER in ir.ops.rms_norm.impls:
        return
    current_platform.import_kernels()
    found = hasattr(torch.ops._C, "rms_norm") and hasattr(torch.ops._C, "fused_add_rms_norm")
    ir.ops.rms_norm.register_impl(PROVIDER, supported=found, supports_args=_fits_norm)(rms_norm)
    ir.ops.fused_add_rms_norm.register_impl(PROVIDER, supported=found, supports_args=_fits_sum, inplace=True)(
        fused_add_rms_norm
    )


def op_priority(_: VllmConfig) -> IrOpPriorityConfig:
    """Replaces `CpuPlatform.get_default_ir_op_priority`: these norms first, then torch's ops."""
    order = [PROVIDER, "native"]
    return IrOpPriorityConfig.with_default(["native"], rms_norm=order, fused_add_rms_norm=order)
