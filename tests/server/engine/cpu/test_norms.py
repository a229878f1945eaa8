"""The norms give what vLLM's own definition of the op gives, or are not used."""

import pytest
import torch
from vllm import ir

from lora_compose.server.engine.cpu import norms

norms.register()
EPSILON = 1e-5


def exact(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    wide = x.double()
    return weight.double() * wide / (wide.pow(2).mean(dim=-1, keepdim=True) + EPSILON).sqrt()


@pytest.mark.parametrize("rows", [1, 8, 100, 700])
@pytest.mark.parametrize("width", [32, 576, 40, 6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_norms_are_those_of_exact_arithmetic_at_any_width(dtype: torch.dtype, width: int, rows: int) -> None:
    x, residual = torch.randn(rows, width).to(dtype), torch.randn(rows, width).to(dtype)
    weight = torch.randn(width).to(dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 2.0**-6
    with ir.ops.rms_norm.set_priority([norms.PROVIDER, "native"]):
        found = ir.ops.rms_norm(x, weight, EPSILON)
    torch.testing.assert_close(found.double(), exact(x, weight), atol=tolerance, rtol=tolerance)
    total = residual + x
    wide = residual.double() + x.double()
    with ir.ops.fused_add_rms_norm.set_priority([norms.PROVIDER, "native"]):
        found, kept = ir.ops.fused_add_rms_norm.maybe_inplace(x.clone(), residual.clone(), weight, EPSILON)
    assert torch.equal(kept, total)
    torch.testing.assert_close(found.double(), exact(wide, weight), atol=tolerance, rtol=tolerance)


def test_only_what_the_kernel_can_read_goes_there() -> None:
    x, weight = torch.randn(4, 64), torch.randn(64)
    with ir.ops.rms_norm.set_priority([norms.PROVIDER, "native"]):
        used = [
            ir.ops.rms_norm.dispatch(*arguments).provider
            for arguments in (
                (x, weight, EPSILON),
                (x[:, :40], weight[:40], EPSILON),
                (x[:, :32], weight[:32], EPSILON),
                (x, None, EPSILON),
                (x, weight, EPSILON, 32),
                (x.half(), weight.half(), EPSILON),
                (x, weight[:1], EPSILON),
                (torch.empty(0, 64), weight, EPSILON),
                (torch.empty(norms.MOST_NUMBERS // 64 + 1, 64), weight, EPSILON),
                (x.bfloat16(), weight, EPSILON),
            )
        ]
    assert used == [norms.PROVIDER, *["native"] * 9]
