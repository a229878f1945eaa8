"""The manager for our own kernels on devices, with real pools and tables and hand-made adapters."""

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typing_extensions import override
from vllm.lora.layers import LoRAMapping
from vllm.lora.request import LoRARequest
from vllm.v1.worker.gpu.lora_utils import LoraState

from lora_compose.server.engine.cpu.packed_factors import PackedPair
from lora_compose.server.engine.device.layer_pool import HostFactors, LayerPool
from lora_compose.server.engine.device.punica_wrapper import PooledPunicaWrapper
from lora_compose.server.engine.device.rank_pool import RankPool
from lora_compose.server.engine.spec import Component, combined, decode_spec
from lora_compose.server.engine.worker.background_build import BackgroundBuilds
from lora_compose.server.engine.worker.composition_manager import BASE_RESIDUAL
from lora_compose.server.engine.worker.graph_choice import NeededLoraState
from lora_compose.server.engine.worker.member_manager import RowCounts
from lora_compose.server.engine.worker.pooled_weights import (
    PooledLoRAManager,
    PooledMember,
    SelectedRequests,
    pool_size,
)
from lora_compose.server.engine.worker.stacking import Yielding
from lora_compose.server.engine.worker.step_times import StepTimes
from tests.server.engine.worker.test_graph_choice import chosen_by_v1
from tests.server.engine.worker.test_lora_manager import FUSED, request

D_IN, WIDTHS = 12, (8, 4)
RANKS = {"a": 3, "b": 5, "c": 2, "d": 8}
CONFIG = SimpleNamespace(max_loras=2, max_lora_rank=8)
Batch = Sequence[LoRARequest | None]


class Manager(PooledLoRAManager):
    """Our manager, for one layer with two slices. Adapter "a" lacks the second one."""

    def __init__(self) -> None:
        wrapper = PooledPunicaWrapper(32, 8, "cpu", CONFIG)
        pool = LayerPool.empty(pool_size(CONFIG), D_IN, WIDTHS, torch.float32, "cpu")
        pool.lora_a.fill_(torch.nan)
        pool.lora_b.fill_(torch.nan)
        self.number = wrapper.add_pool(pool)
        self._adapter_manager = SimpleNamespace(wrapper=wrapper)
        self._builds: BackgroundBuilds[PooledMember] = BackgroundBuilds()
        self._fused: tuple[Component, ...] = ()
        self._members: dict[str, PooledMember] = {}
        self._ranks, self._selected, self._meter = RankPool(pool_size(CONFIG)), None, StepTimes()
        self.uploads, self.built = 0, 0
        draw = torch.Generator().manual_seed(1)
        self.factors = {
            name: [
                PackedPair(
                    lora_A=torch.randn(rank, D_IN, generator=draw),
                    lora_B=torch.randn(width, rank, generator=draw),
                )
                for width in WIDTHS
            ]
            for name, rank in RANKS.items()
        }
        self.x, self.y = torch.randn(32, D_IN, generator=draw), torch.randn(32, sum(WIDTHS), generator=draw)

    @override
    def _build(self, directory: str, yielding: Yielding = iter) -> PooledMember:
        self.built += 1
        pairs: list[PackedPair | None] = [*self.factors[directory]]
        if directory == "a":
            pairs[1] = None
        pool = self._wrapper.pools[self.number]
        return PooledMember(RANKS[directory], [HostFactors.of(pairs, RANKS[directory], pool, pinned=False)])

    def run(self, requests: Batch, counts: Sequence[int] | None = None) -> torch.Tensor:
        """y after the batch."""
        tokens = tuple(counts or [1] * len(requests))
        self.select(requests, RowCounts(tokens, tokens, (1,) * len(tokens)))
        out = self.y[: sum(tokens)].clone()
        self._wrapper.add_lora_linear(out, self.x[: sum(tokens)], self.number, (), 1.0, WIDTHS)
        return out

    def dense(self, requests: Batch, counts: Sequence[int] | None = None) -> torch.Tensor:
        """What it has to be: `y + x ΔWᵀ` in float64, with what each request adds to the fused weights."""
        counts = counts or [1] * len(requests)
        expected, xs = (
            self.y[: sum(counts)].double(),
            torch.split(self.x[: sum(counts)].double(), list(counts)),
        )
        for wanted, part, x in zip(requests, torch.split(expected, list(counts)), xs, strict=True):
            for component in combined(decode_spec(wanted.lora_path) if wanted else (), self._fused):
                part += component.weight * x @ self._change(component.directory).T
        return expected

    def _change(self, name: str) -> torch.Tensor:
        slices = [pair.lora_B.double() @ pair.lora_A.double() for pair in self.factors[name]]
        return torch.cat([slices[0], torch.zeros_like(slices[1]) if name == "a" else slices[1]])


def assert_right(manager: Manager, requests: Batch, counts: Sequence[int] | None = None) -> None:
    """The kernels add what each request needs."""
    expected = manager.dense(requests, counts)
    assert torch.allclose(manager.run(requests, counts).double(), expected, atol=1e-4)


def test_each_request_gets_its_own_stack_and_the_base_nothing() -> None:
    manager = Manager()
    stack = request(1, a=0.5, b=-2.0)
    assert_right(manager, [None, request(2, a=1.0), stack, request(3, b=1.0), stack], [3, 1, 2, 4, 1])
    assert torch.equal(manager.run([None, stack])[0], manager.y[0])


def test_a_slider_that_moves_1_000_times_builds_and_copies_nothing() -> None:
    manager = Manager()
    assert_right(manager, [request(1, a=1.0, b=1.0)])
    before = manager.built, manager.uploads
    for step in range(1000):
        moved = request(1, a=step / 500 - 1, b=0.25)
        assert_right(manager, [moved, None, request(1, a=0.5, b=-step / 1000)])
    assert (manager.built, manager.uploads) == before == (2, 2)


def test_another_choice_of_adapters_that_are_on_the_device_builds_and_copies_nothing() -> None:
    manager = Manager()
    manager.run([request(1, a=1.0, b=1.0)])
    manager.run([request(2, c=1.0)])
    for members in ({"a": 1.0}, {"b": 0.5, "c": 2.0}, {"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 3.0, "c": -1.0}):
        assert_right(manager, [request(9, **members)])
    assert (manager.built, manager.uploads) == (3, 3)


def test_adapters_leave_the_device_and_return() -> None:
    manager = Manager()
    manager._ranks.size -= 12
    manager._ranks._free = manager._ranks._free[:12]
    for members in ({"d": 1.0}, {"a": 1.0, "b": 1.0}, {"c": 1.0, "b": 1.0}, {"d": 1.0}, {"a": 1.0, "c": 2.0}):
        assert_right(manager, [request(1, **members), None])
        manager._ranks.check_integrity()
    assert manager.uploads == 6


def test_fusing_changes_only_what_each_row_needs() -> None:
    manager = Manager()
    own = request(1, a=1.0, b=0.5)
    manager.run([own])
    manager.fuse(FUSED)
    assert_right(manager, [None, own, request(2, c=1.0)])
    assert torch.equal(manager.run([own, None])[0], manager.y[0])
    assert manager.needed([None]) == {BASE_RESIDUAL}
    assert manager.needed([own]) == set()
    manager.fuse(())
    assert_right(manager, [own, None])
    assert (manager.built, manager.uploads) == (3, 3)


def is_active(manager: Manager) -> bool:
    return manager._wrapper.is_active


def test_a_batch_without_adapters_runs_no_kernel_and_a_dummy_batch_runs_them_on_nothing() -> None:
    manager = Manager()
    wrapper = manager._wrapper
    manager.run([request(1, a=1.0)])
    assert is_active(manager)
    manager.run([None])
    assert not is_active(manager)
    dummies = {LoRARequest("warmup_1", 1, "/not/a/real/path")}
    manager.set_active_adapters(dummies, LoRAMapping((1,), (1,)))
    assert is_active(manager)
    out = manager.y.clone()
    wrapper.add_lora_linear(out, manager.x, manager.number, (), 1.0, WIDTHS)
    assert torch.equal(out, manager.y)
    manager.set_active_adapters(set(), LoRAMapping((0,), (0,)))
    assert not is_active(manager)


def test_the_v2_model_runner_s_call_after_select_changes_nothing() -> None:
    manager = Manager()
    wanted = request(1, a=1.0)
    expected = manager.run([wanted])
    manager.set_active_adapters(SelectedRequests({wanted}), LoRAMapping((1,), (1,)))
    assert torch.equal(manager.run([wanted]), expected)


def test_an_adapter_that_is_unloaded_and_registered_again_is_read_again() -> None:
    manager = Manager()
    wanted = request(1, c=1.0)
    manager.run([wanted])
    manager.unload(wanted)
    manager.factors["c"] = [PackedPair(lora_A=p.lora_A * 2, lora_B=p.lora_B) for p in manager.factors["c"]]
    assert_right(manager, [wanted])


def test_a_batch_that_does_not_fit_says_so() -> None:
    manager = Manager()
    manager._ranks.allocate("filler", 20, ())
    with pytest.raises(RuntimeError, match="a composition has rank 18; at most 16 fit"):
        manager.run([request(1, a=1.0, b=1.0, c=1.0, d=1.0)])


def test_the_v2_model_runner_selects_its_rows_in_the_order_of_the_batch() -> None:
    manager = Manager()
    state = NeededLoraState(LoraState(8), manager)
    requests: list[LoRARequest | None] = [request(1, a=1.0), None, request(1, a=-2.0, b=0.0)]
    for row, wanted in enumerate(requests):
        state.add_request(f"r{row}", row, wanted)
    order = [2, 1, 0]
    names, counts = [f"r{row}" for row in order], np.array([2, 1, 3])
    prompts, tokens, active = state.make_lora_inputs(names, np.array(order), counts)
    assert (prompts, tokens) == ((1, 0, 1), (1, 1, 0, 1, 1, 1))
    assert isinstance(active, SelectedRequests)
    manager.set_active_adapters(active, LoRAMapping(tokens, prompts))
    out = manager.y[:6].clone()
    manager._wrapper.add_lora_linear(out, manager.x[:6], manager.number, (), 1.0, WIDTHS)
    expected = manager.dense([requests[row] for row in order], [2, 1, 3])
    assert torch.allclose(out.double(), expected, atol=1e-4)


def test_a_request_that_differs_from_the_fused_composition_in_its_weights_only_gets_lora() -> None:
    manager = Manager()
    manager.fuse(FUSED)
    own, other = request(1, a=1.0, b=0.5), request(1, a=0.25, b=0.5)
    other.lora_name = "the same adapters at other weights"
    for batch, count in (([own, own], 0), ([own, other], 1), ([other, own], 1)):
        _, given = chosen_by_v1(manager, batch)
        assert given["force_num_active_loras"] == count
    assert_right(manager, [own, other])
