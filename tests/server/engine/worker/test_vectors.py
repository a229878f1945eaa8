"""The vectors of DoRA and lora_bias on their way through vLLM's slices, for two workers."""

from types import SimpleNamespace

import torch
from vllm.model_executor.layers.linear import ColumnParallelLinear, RowParallelLinear

from lora_compose.server.engine.cpu.packed_factors import PackedPair
from lora_compose.server.engine.worker.runtime_weights import base_bias_of
from lora_compose.server.engine.worker.stacking import StackedModule
from lora_compose.server.engine.worker.vectors import split_vectors, with_vectors

RANK, D_IN, D_OUT = 3, 5, 8


def module(change: torch.Tensor | None, bias: torch.Tensor | None) -> StackedModule:
    return StackedModule(torch.randn(RANK, D_IN), torch.randn(D_OUT, RANK), change, bias)


def test_each_worker_gets_its_rows_of_factors_and_vectors() -> None:
    whole, shifted = module(torch.randn(D_OUT), None), module(None, torch.randn(D_OUT))
    assert whole.row_change is not None
    assert shifted.bias is not None
    for rows in (slice(0, 4), slice(4, 8)):  # as slice_lora_b does for two workers
        pairs = [with_vectors(whole), with_vectors(shifted)]
        sliced = [PackedPair(lora_A=pair.lora_A, lora_B=pair.lora_B[rows]) for pair in pairs]
        factors, terms = split_vectors([sliced[0], None, sliced[1]], [4, 2, 4], None, True)
        assert factors[1] is None
        for got, made in ((factors[0], whole), (factors[2], shifted)):
            assert got is not None
            assert torch.equal(got.lora_A, made.lora_A)
            assert torch.equal(got.lora_B, made.lora_B[rows])
        zeros = torch.zeros(6)
        assert torch.equal(terms.change, torch.cat([whole.row_change[rows], zeros]))
        assert torch.equal(terms.bias, torch.cat([zeros, shifted.bias[rows]]))


def test_the_product_of_the_factors_with_vectors_is_the_same() -> None:
    made = module(torch.randn(D_OUT), torch.randn(D_OUT))
    pair = with_vectors(made)
    torch.testing.assert_close(pair.lora_B @ pair.lora_A, made.lora_B @ made.lora_A)


def test_only_the_first_worker_of_a_row_parallel_layer_adds_biases() -> None:
    bias = torch.ones(2)
    for kind, rank, skipped, expected in (
        (RowParallelLinear, 0, False, (True, True)),
        (RowParallelLinear, 1, False, (False, False)),
        (ColumnParallelLinear, 1, False, (True, True)),
        (ColumnParallelLinear, 0, True, (False, True)),
    ):
        layer = kind.__new__(kind)
        torch.nn.Module.__init__(layer)
        layer.bias, layer.skip_bias_add = torch.nn.Parameter(bias), skipped
        found, adds = base_bias_of(SimpleNamespace(base_layer=layer, tp_rank=rank))
        assert (found is not None, adds) == expected
