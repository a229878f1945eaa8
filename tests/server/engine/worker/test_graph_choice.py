"""Both model runners choose the CUDA graph by what the rows need added to the present base weights.

The functions that choose are vLLM's own. Without the overrides, the fused cases fail in both.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from vllm.lora.request import LoRARequest
from vllm.v1.worker.gpu.lora_utils import LoraState, get_num_active_loras_for_dispatch

from lora_compose.server.engine.worker.graph_choice import NeededLoraState, choose_execution
from tests.server.engine.worker.test_lora_manager import FUSED, Manager, request

OWN = request(1, a=1.0, b=0.5)
"""A request for the composition that is fused."""
OTHER = request(2, a=1.0, c=2.0)
Batch = list[LoRARequest | None]
BATCHES = [
    pytest.param(False, [None, None], 0, id="plain, base only"),
    pytest.param(False, [OWN, None], 1, id="plain, one adapter"),
    pytest.param(True, [None, None], 1, id="fused, base only"),
    pytest.param(True, [OWN, OWN], 0, id="fused, its own rows only"),
    pytest.param(True, [OWN, None], 1, id="fused, its own and the base"),
    pytest.param(True, [OWN, OTHER], 1, id="fused, its own and another"),
    pytest.param(True, [OTHER, None, OWN], 2, id="fused, another and the base"),
]


def manager(is_fused: bool) -> Manager:
    made = Manager(slots=3)
    made.fuse(FUSED if is_fused else ())
    return made


@pytest.mark.parametrize(("is_fused", "batch", "expected"), BATCHES)
def test_the_v2_model_runner_counts_what_is_left_to_add(is_fused: bool, batch: Batch, expected: int) -> None:
    upstream = LoraState(8)
    for row, wanted in enumerate(batch):
        upstream.add_request(f"r{row}", row, wanted)
    state = NeededLoraState(upstream, manager(is_fused))
    names = [f"r{row}" for row in range(len(batch))]
    config: Any = SimpleNamespace(max_loras=3)
    assert get_num_active_loras_for_dispatch(config, state, names, dummy_run=False) == expected
    assert get_num_active_loras_for_dispatch(config, state, names, dummy_run=True) == 4


def test_the_v2_model_runner_gives_the_manager_every_request_of_the_batch() -> None:
    state = NeededLoraState(LoraState(8), manager(is_fused=True))
    state.add_request("own", 3, OWN)
    state.add_request("base", 5, None)
    inputs = state.make_lora_inputs(["own", "base"], np.array([3, 5]), np.array([2, 1]))
    assert inputs == ((1, 0), (1, 1, 0), {OWN})


def chosen_by_v1(needs: Any, batch: Batch) -> Any:
    """What the V1 model runner's own method gets for a batch."""
    requests = {f"r{row}": SimpleNamespace(lora_request=wanted) for row, wanted in enumerate(batch)}
    input_batch = SimpleNamespace(req_ids=list(requests))
    others = {"ended": SimpleNamespace(lora_request=OTHER)}
    runner = SimpleNamespace(lora_manager=needs, input_batch=input_batch, requests=requests | others)
    return choose_execution(runner, lambda *args, **given: (args, given), 7, num_reqs=2)


@pytest.mark.parametrize(("is_fused", "batch", "expected"), BATCHES)
def test_the_v1_model_runner_counts_what_is_left_to_add(is_fused: bool, batch: Batch, expected: int) -> None:
    chosen = chosen_by_v1(manager(is_fused), batch)
    forced = {"force_has_lora": None, "force_num_active_loras": expected}
    assert chosen == ((7,), {"num_reqs": 2, **forced})


def test_a_dummy_run_of_the_v1_model_runner_keeps_its_numbers() -> None:
    forced: dict[str, Any] = {"force_has_lora": True, "force_num_active_loras": 4}
    assert choose_execution(SimpleNamespace(), lambda **given: given, **forced) == forced


def test_a_dummy_request_counts_as_an_adapter() -> None:
    dummy = LoRARequest("warmup_1", 1, "/not/a/real/path")
    assert manager(is_fused=True).needed([dummy]) == {dummy}
