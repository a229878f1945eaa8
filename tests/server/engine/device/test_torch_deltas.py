"""The sum of the tables with torch, against float64."""

import torch

from lora_compose.server.engine.device.reference import added
from lora_compose.server.engine.device.torch_deltas import add_deltas
from lora_compose.server.engine.device.trial import TrialLayer
from tests.server.engine.device.test_kernels import RANKS, stacks


def test_it_is_what_the_kernels_compute() -> None:
    layer = TrialLayer(RANKS)
    for rows in (9, 70):
        x, y = layer.batch(rows)
        layer.table.set(stacks(rows), [1] * rows, layer.ranks.rows)
        out = y.clone()
        add_deltas(out, x, layer.pool, layer.table)
        expected = added(y, x, layer.pool, stacks(rows), layer.ranks.rows)
        assert torch.allclose(out.double(), expected, atol=1e-4)
        assert torch.equal(out[::9], y[::9])
