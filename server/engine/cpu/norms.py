"""RMS norms for vLLM's model code on CPUs, in one call each.

vLLM's default on CPUs is a chain of about ten torch ops, which takes 17 to 23 µs for eight rows of 576
numbers in place of 5 µs. A model calls it twice a layer. vLLM compares the names of all parameters with its
own, also of unused ones.
"""

from functools import cache
from typing import Any

import torch
from vllm import ir
from vllm.config import VllmConfig
from vllm.config.kernel import IrOpPriorityConfig

PROVIDER = "lora_compose_cpu"
MOST_NUMBERS = 1 << 18
"""For more, torch's threads are faster than one call on the calling thread."""


def _fits(x: torch.Tensor, weight: torch.Tensor | None, variance_size: int | None) -> bool:
    if weight is None or variance_size is not None or weight.dtype != x.dtype:
        return False
    if x.dtype not in {torch.float32, torch.bfloat16} or not 0 < x.numel() <= MOST_NUMBERS:
        return False
    return x.is_contiguous() and weight.is_contiguous() and weight.shape == x.shape[-1:]


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


@cache
def kernels() -> dict[torch.dtype, Any]:
    """The functions of `norm_kernel`. Each is compiled at its first call."""
    # Imported here: when a worker starts, vLLM inspects all modules and fails at one that numba imports.
    from lora_compose.server.engine.cpu.norm_kernel import norm, norm_bfloat16

    return {torch.float32: norm, torch.bfloat16: norm_bfloat16}


def compile_for(dtype: torch.dtype) -> None:
    """Compile the function of a dtype now, so that no request waits for it."""
    if dtype in kernels():
        one = torch.ones(1, dtype=dtype)
        _run(one, one, 0, one, 1.0)


def _run(y: torch.Tensor, x: torch.Tensor, residual: int, weight: torch.Tensor, epsilon: float) -> None:
    width = x.shape[-1]
    addresses = y.data_ptr(), x.data_ptr(), residual, weight.data_ptr()
    kernels()[x.dtype](*addresses, (x.numel() // width, width), epsilon)


def rms_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    epsilon: float,
    variance_size: int | None = None,  # noqa: ARG001
) -> torch.Tensor:
    """`weight · x / √(mean(x²) + ε)` for each row. Called only if `_fits_norm`."""
    assert weight is not None
    output = torch.empty_like(x)
    _run(output, x, 0, weight, epsilon)
    return output


def fused_add_rms_norm(
    x: torch.Tensor,
    x_residual: torch.Tensor,
    weight: torch.Tensor | None,
    epsilon: float,
    variance_size: int | None = None,  # noqa: ARG001
) -> tuple[torch.Tensor, torch.Tensor]:
    """`x_residual += x`, then `x = rms_norm(x_residual)`, both in place. Called only if `_fits_sum`."""
    assert weight is not None
    _run(x, x, x_residual.data_ptr(), weight, epsilon)
    return x, x_residual


def register() -> None:
    """Add both to vLLM's implementations. Calling it again changes nothing."""
    if PROVIDER in ir.ops.rms_norm.impls:
        return
    ir.ops.rms_norm.register_impl(PROVIDER, supports_args=_fits_norm)(rms_norm)
    ir.ops.fused_add_rms_norm.register_impl(PROVIDER, supports_args=_fits_sum, inplace=True)(
        fused_add_rms_norm
    )


def op_priority(_: VllmConfig) -> IrOpPriorityConfig:
    """Replaces `CpuPlatform.get_default_ir_op_priority`: these norms first, then torch's ops."""
    order = [PROVIDER, "native"]
    return IrOpPriorityConfig.with_default(["native"], rms_norm=order, fused_add_rms_norm=order)
