"""An adapter in memory."""

import numpy as np
import torch

from lora_compose.adapters.peft.checkpoint import Lora, LoraModule


def module(rank: int = 2, scaling: float = 1.5, dtype: torch.dtype = torch.float32) -> LoraModule:
    generator = torch.Generator().manual_seed(rank)
    lora_A = torch.randn(rank, 5, generator=generator).to(dtype)
    return LoraModule(lora_A, torch.randn(4, rank, generator=generator).to(dtype), scaling)


def test_the_delta_is_scaling_times_b_times_a() -> None:
    one = module(dtype=torch.bfloat16)
    expected = 1.5 * one.lora_B.double().numpy() @ one.lora_A.double().numpy()
    assert one.delta().dtype == torch.float32
    np.testing.assert_allclose(one.delta().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_the_rank_of_an_adapter_is_the_largest_of_its_modules() -> None:
    assert Lora({"a": module(2), "b": module(4)}).rank == 4


def test_equal_values_have_equal_digests_in_any_dtype_and_layout() -> None:
    half = module(dtype=torch.bfloat16)
    full = LoraModule(half.lora_A.float(), half.lora_B.float().T.contiguous().T, half.scaling)
    assert half.digest() == full.digest()


def test_a_changed_value_or_scaling_changes_the_digest() -> None:
    one = module()
    nudged = LoraModule(one.lora_A, one.lora_B + 1e-3, one.scaling)
    assert len({one.digest(), nudged.digest(), module(scaling=2.0).digest()}) == 3
