"""The manager for slots that hold factors, as on GPUs, with hand-written slots."""

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from typing_extensions import override
from vllm.lora.layers import LoRAMapping
from vllm.lora.request import LoRARequest

from lora_compose.server.engine.spec import Component, combined, decode_spec, encode_spec
from lora_compose.server.engine.worker.background_build import BackgroundBuilds, yielding
from lora_compose.server.engine.worker.composition_manager import BASE_RESIDUAL
from lora_compose.server.engine.worker.lora_manager import StackingLoRAManager
from lora_compose.server.engine.worker.stacking import Yielding
from lora_compose.server.engine.worker.step_times import StepTimes


class Slots:
    """Replaces vLLM's adapter manager: the least recently used adapter leaves a full slot or memory."""

    def __init__(self, capacity: int, lora_slots: int) -> None:
        self.capacity, self.lora_slots = capacity, lora_slots
        self.adapters: OrderedDict[int, Any] = OrderedDict()
        self._active_adapters: OrderedDict[int, None] = OrderedDict()
        self.mapping: LoRAMapping | None = None
        self.lost_slots: list[int] = []

    def __len__(self) -> int:
        return len(self.adapters)

    def list_adapters(self) -> dict[int, Any]:
        return dict(self.adapters)

    def get_adapter(self, lora_int_id: int) -> Any:
        self.adapters.move_to_end(lora_int_id)
        return self.adapters[lora_int_id]

    def add_adapter(self, lora: Any) -> bool:
        assert len(self.adapters) < self.capacity
        self.adapters[lora.id] = lora
        return True

    def activate_adapter(self, lora_int_id: int) -> None:
        assert lora_int_id in self.adapters
        if lora_int_id not in self._active_adapters and len(self._active_adapters) >= self.lora_slots:
            self.lost_slots.append(self._active_adapters.popitem(last=False)[0])
        self._active_adapters[lora_int_id] = None
        self._active_adapters.move_to_end(lora_int_id)

    def remove_adapter(self, lora_int_id: int) -> bool:
        self._active_adapters.pop(lora_int_id, None)
        return self.adapters.pop(lora_int_id, None) is not None

    def remove_oldest_adapter(self) -> None:
        self.remove_adapter(next(iter(self.adapters)))

    def remove_all_adapters(self) -> None:
        self.adapters.clear()
        self._active_adapters.clear()

    def set_adapter_mapping(self, mapping: LoRAMapping) -> None:
        self.mapping = mapping


class Manager(StackingLoRAManager):
    """Our manager, with builds that record their components. While `gate` is closed, builds do not end."""

    def __init__(self, capacity: int = 4, slots: int = 2) -> None:
        self.slots = self._adapter_manager = Slots(capacity, slots)
        self._builds: BackgroundBuilds[Any] = BackgroundBuilds()
        self._specs: dict[int, str] = {}
        self._fused: tuple[Component, ...] = ()
        self._meter = StepTimes()
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()
        self.broken: Exception | None = None
        self.yielding: Yielding | None = None

    @override
    def _build(self, lora_int_id: int, spec: str, yielding: Yielding = iter) -> Any:
        self.yielding = yielding
        residual = combined(decode_spec(spec), self._fused)
        self.begun.set()
        assert self.gate.wait(10)
        if self.broken is not None:
            raise self.broken
        assert residual, "vLLM cannot build an adapter without layers"
        return SimpleNamespace(id=lora_int_id, made_of={c.directory: c.weight for c in residual})

    def made_of(self, lora_int_id: int) -> dict[str, float]:
        found: dict[str, float] = self.slots.adapters[lora_int_id].made_of
        return found


def request(lora_int_id: int, **weights: float) -> LoRARequest:
    spec = encode_spec([Component(name, weight) for name, weight in weights.items()])
    return LoRARequest(f"name{lora_int_id}", lora_int_id, spec)


def prepare(manager: Manager, wanted: LoRARequest) -> tuple[str, str]:
    while (state := manager.prepare(wanted))[0] == "preparing":
        time.sleep(0.001)
    return state


def run(manager: Manager, requests: Sequence[LoRARequest | None]) -> list[int]:
    """Run a batch of one row a request. Returns the id whose factors each row got, 0 without factors."""
    ids = tuple(r.lora_int_id if r else 0 for r in requests)
    manager.set_active_adapters({r for r in requests if r}, LoRAMapping(ids, ids))
    assert manager.slots.mapping is not None
    assert manager.slots.mapping.index_mapping == manager.slots.mapping.prompt_mapping
    return list(manager.slots.mapping.index_mapping)


FUSED = (Component("a", 1.0), Component("b", 0.5))


def test_with_the_plain_base_every_row_has_its_own_and_base_rows_none() -> None:
    manager = Manager()
    assert run(manager, [None, request(1, a=1.0), request(2, b=0.5), None]) == [0, 1, 2, 0]
    assert (manager.made_of(1), manager.made_of(2)) == ({"a": 1.0}, {"b": 0.5})


def test_while_something_is_fused_its_own_rows_need_none_and_the_base_s_rows_do() -> None:
    manager = Manager(slots=3)
    manager.fuse(FUSED)
    rows = run(manager, [None, request(1, a=1.0, b=0.5), request(2, a=1.0, c=2.0)])
    assert rows == [BASE_RESIDUAL.lora_int_id, 0, 2]
    assert manager.made_of(BASE_RESIDUAL.lora_int_id) == {"a": -1.0, "b": -0.5}
    assert manager.made_of(2) == {"b": -0.5, "c": 2.0}
    assert 1 not in manager.slots.adapters


def test_every_edge_builds_anew_what_was_prepared() -> None:
    manager = Manager()
    wanted = request(1, a=1.0)
    prepare(manager, wanted)
    for fused, expected in ((FUSED, {"b": -0.5}), ((), {"a": 1.0})):
        manager.fuse(fused)
        assert manager.made_of(1) == expected
        run(manager, [None, wanted])
        assert manager.made_of(1) == expected
    assert list(manager.slots.adapters) == [1]


def test_a_prepared_composition_can_be_fused_and_then_needs_no_build() -> None:
    manager = Manager()
    wanted = request(1, a=1.0, b=0.5)
    prepare(manager, wanted)
    manager.fuse(FUSED)
    assert not manager.slots.adapters
    manager.fuse(())
    assert manager.made_of(1) == {"a": 1.0, "b": 0.5}


def test_a_fused_composition_can_be_prepared_and_exists_after_the_base_is_restored() -> None:
    manager = Manager()
    manager.fuse(FUSED)
    assert prepare(manager, request(1, a=1.0, b=0.5)) == ("prepared", "")
    assert manager.add_adapter(request(2, b=0.5, a=1.0))
    assert not manager.slots.adapters
    manager.fuse(())
    assert manager.made_of(1) == manager.made_of(2) == {"a": 1.0, "b": 0.5}


def test_a_composition_whose_weights_are_0_needs_nothing() -> None:
    manager = Manager()
    nothing = request(1, a=0.0)
    assert prepare(manager, nothing) == ("prepared", "")
    assert run(manager, [nothing, request(2, b=1.0), None]) == [0, 2, 0]


def test_a_dummy_batch_of_vllm_is_left_as_it_is_while_something_is_fused() -> None:
    manager = Manager(capacity=4, slots=2)
    manager.fuse(FUSED)
    dummies = [LoRARequest(f"warmup_{number}", number, "/not/a/real/path") for number in (1, 2)]
    for dummy in dummies:
        manager.slots.add_adapter(SimpleNamespace(id=dummy.lora_int_id))
    assert run(manager, [*dummies, None]) == [1, 2, 0]
    assert run(manager, [None]) == [BASE_RESIDUAL.lora_int_id]


def test_the_base_is_switched_even_if_an_adapter_is_gone() -> None:
    manager = Manager()
    prepare(manager, request(1, c=1.0))
    manager.broken = FileNotFoundError("c")
    manager.fuse(FUSED)
    manager.broken = None
    assert run(manager, [None, request(1, c=1.0)]) == [BASE_RESIDUAL.lora_int_id, 1]
    assert manager.made_of(1) == {"a": -1.0, "b": -0.5, "c": 1.0}


def test_the_meter_counts_the_tokens_of_each_composition_and_of_the_base() -> None:
    manager = Manager()
    named, other = request(1, a=1.0), request(2, b=1.0)
    assert manager.read_meter() == {"tokens": [], "busy_seconds": 0.0, "overheads": []}
    for _ in range(3):
        run(manager, [named, None, other, named])
    assert dict(manager.read_meter()["tokens"]) == {"name1": 4, None: 2, "name2": 2}


def test_a_residual_of_too_high_a_rank_waits_for_the_next_edge() -> None:
    manager = Manager()
    prepare(manager, request(1, a=1.0))
    manager.broken = ValueError("rank 99")
    manager.fuse(FUSED)
    assert not manager.slots.adapters
    manager.broken = None
    manager.fuse(())
    assert manager.made_of(1) == {"a": 1.0}


def test_what_a_batch_uses_keeps_its_slot() -> None:
    manager = Manager(capacity=4, slots=2)
    for first, second, lost in ((1, 2, []), (3, 2, [1]), (3, 1, [1, 2]), (1, 3, [1, 2])):
        run(manager, [request(first, a=first), request(second, a=second)])
        assert manager.slots.lost_slots == lost
    with pytest.raises(RuntimeError, match="3 adapters, but there are 2 slots"):
        run(manager, [request(number, a=1.0) for number in (1, 2, 3)])


def test_a_build_that_fails_says_so_once_and_may_be_tried_again() -> None:
    manager = Manager()
    manager.broken = ValueError("rank 99")
    assert prepare(manager, request(1, a=1.0)) == ("failed", "ValueError: rank 99")
    assert not manager.slots.adapters
    manager.broken = None
    assert prepare(manager, request(1, a=1.0)) == ("prepared", "")
    assert manager.made_of(1) == {"a": 1.0}


def test_what_is_forgotten_is_gone_whether_it_was_built_or_not() -> None:
    manager = Manager()
    wanted = request(1, a=1.0)
    prepare(manager, wanted)
    manager.unload(wanted)
    assert not manager.slots.adapters
    manager.gate.clear()
    assert manager.prepare(wanted)[0] == "preparing"
    manager.unload(wanted)
    manager.gate.set()
    manager.unload(wanted)
    assert not manager.slots.adapters


@pytest.mark.parametrize("is_done", [True, False], ids=["built", "being built"])
def test_a_build_begun_before_an_edge_is_not_used_after_it(is_done: bool) -> None:
    manager = Manager()
    wanted = request(1, a=1.0)
    manager.gate.clear()
    manager.prepare(wanted)
    assert manager.begun.wait(10)
    if is_done:
        manager.gate.set()
        while manager._builds.state(1)[0] == "preparing":
            time.sleep(0.001)
    manager.fuse(FUSED)
    manager.gate.set()
    prepare(manager, wanted)
    assert manager.made_of(1) == {"b": -0.5}


def test_a_build_pauses_in_the_background_and_not_in_the_engine_loop() -> None:
    manager = Manager()
    prepare(manager, request(1, a=1.0))
    assert manager.yielding is yielding
    manager.add_adapter(request(2, a=2.0))
    assert manager.yielding is iter
