"""Every path of the CPU kernels, compared with a float64 sum row by row."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_compose.server.engine.cpu import layer_plan
from lora_compose.server.engine.cpu.batch import Need, Work
from lora_compose.server.engine.cpu.cost_meter import Meter
from lora_compose.server.engine.cpu.packed_factors import PackedPair, pack_layer
from lora_compose.server.engine.cpu.plans import Member
from lora_compose.server.engine.cpu.punica_wrapper import GroupedPunicaWrapper
from lora_compose.server.engine.worker.runtime_weights import factors_of

WIDTHS = (6, 3, 3)
D_IN = 5
LAYER = tuple(torch.zeros(1) for _ in WIDTHS)
DELTAS: dict[str, torch.Tensor] = {}
MEMBERS: dict[str, Member] = {}
torch.manual_seed(1)
for name, ranks in {"a": (2, 2, 2), "b": (4, 0, 1), "c": (1, 3, 0), "empty": (0, 0, 0)}.items():
    dense = [torch.zeros(width, D_IN, dtype=torch.double) for width in WIDTHS]
    pairs: list[PackedPair | None] = [None, None, None]
    for i, (rank, width) in enumerate(zip(ranks, WIDTHS, strict=True)):
        if rank:
            lora_a, lora_b = torch.randn(rank, D_IN), torch.randn(width, rank)
            pairs[i] = PackedPair(lora_A=lora_a, lora_B=lora_b)
            dense[i] = lora_b.double() @ lora_a.double()
    DELTAS[name] = torch.cat(dense)
    made_of = pack_layer(pairs, WIDTHS)
    MEMBERS[name] = Member({} if made_of is None else {id(LAYER): made_of})

WANTED = st.dictionaries(st.sampled_from(sorted(DELTAS)), st.sampled_from([1.0, 0.5, -2.0]), max_size=3)
READING = st.lists(st.tuples(WANTED, st.integers(1, 4)), min_size=1, max_size=8)
DECODING = st.lists(st.tuples(WANTED, st.just(1)), min_size=1, max_size=8)
PATHS = {"the kernel": 1 << 30, "torch": -1}


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_plan, "SMALL_SHARE", PATHS[request.param])


def wrapper() -> GroupedPunicaWrapper:
    made = GroupedPunicaWrapper.__new__(GroupedPunicaWrapper)
    made._set_up()
    return made


def run(made: GroupedPunicaWrapper, y: torch.Tensor, x: torch.Tensor) -> None:
    made.add_lora_linear(y, x, LAYER, LAYER, 1.0, WIDTHS)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(READING | DECODING, min_size=1, max_size=4))
@pytest.mark.usefixtures("path")
def test_every_row_gets_its_own_sum_and_base_rows_are_not_touched(
    batches: list[list[tuple[dict[str, float], int]]],
) -> None:
    made = wrapper()
    for requests in batches:
        counts = [count for _, count in requests]
        needs = [Need(wanted) for wanted, _ in requests]
        made.begin_batch(Work.of(needs, counts), MEMBERS.__getitem__, Meter())
        rows = [wanted for wanted, count in requests for _ in range(count)]
        for _ in range(3):  # decoding runs one plan for many steps
            assert_step(made, rows)


def assert_step(made: GroupedPunicaWrapper, rows: list[dict[str, float]]) -> None:
    x, before = torch.randn(len(rows), D_IN), torch.randn(len(rows), sum(WIDTHS))
    y = before.clone()
    run(made, y, x)
    for row, wanted in enumerate(rows):
        if not wanted:
            assert torch.equal(y[row], before[row])
        delta = sum((w * DELTAS[m] for m, w in wanted.items()), torch.zeros(12, D_IN).double())
        torch.testing.assert_close(
            y[row].double(), before[row].double() + delta @ x[row].double(), atol=1e-4, rtol=1e-4
        )


def test_a_batch_without_adapters_ends_the_one_before() -> None:
    made = wrapper()
    for wanted in ({"a": 1.0}, {}):
        made.begin_batch(Work.of([Need(wanted)], [1]), MEMBERS.__getitem__, Meter())
        assert_step(made, [wanted])


def test_the_same_prompt_gives_the_same_bits_whatever_was_decoded_in_between() -> None:
    made, prompt = wrapper(), Work.of([Need({"a": 0.5, "b": -2.0})], [200])
    x = torch.randn(200, D_IN)
    outputs = []
    for batch in (prompt, Work.of([Need({"a": 1.0, "b": 1.0})], [1]), prompt):
        made.begin_batch(batch, MEMBERS.__getitem__, Meter())
        outputs.append(torch.zeros(len(x), sum(WIDTHS)))
        height = batch.deltas.height
        run(made, outputs[-1][:height], x[:height])
    assert torch.equal(outputs[0], outputs[2])


def test_bfloat16_goes_through_torch() -> None:
    made, half = wrapper(), torch.bfloat16
    pairs = [
        PackedPair(lora_A=torch.randn(2, D_IN).to(half), lora_B=torch.randn(w, 2).to(half)) for w in WIDTHS
    ]
    pack = pack_layer(pairs, WIDTHS)
    assert pack is not None
    work = Work.of([Need({"a": 0.5}), Need()], [2, 1])
    made.begin_batch(work, lambda _: Member({id(LAYER): pack}), Meter())
    x, y = torch.randn(3, D_IN).to(half), torch.zeros(3, 12).to(half)
    run(made, y, x)
    delta = torch.cat([pair.lora_B.float() @ pair.lora_A.float() for pair in pairs])
    torch.testing.assert_close(y[:2].float(), 0.5 * x[:2].float() @ delta.T, atol=0.1, rtol=0.05)
    assert not y[2].any()


@pytest.mark.parametrize("rank", [0, 1])
def test_each_worker_takes_its_share_of_the_outputs(rank: int) -> None:
    whole = [(torch.randn(2, D_IN), torch.randn(4, 2)) for _ in range(2)]
    layer = SimpleNamespace(
        n_slices=2,
        tp_size=2,
        slice_lora_a=lambda a: a,
        slice_lora_b=lambda bs: [b[2 * rank : 2 * rank + 2] for b in bs],
    )
    weights = SimpleNamespace(lora_a=[a for a, _ in whole], lora_b=[b for _, b in whole])
    shares = factors_of(layer, weights)
    for share, (a, b) in zip(shares, whole, strict=True):
        assert share is not None
        assert torch.equal(share.lora_B @ share.lora_A, (b @ a)[2 * rank : 2 * rank + 2])
