"""LoRA of the input embedding and the output head on CPUs, compared with float64 sums row by row."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from lora_compose.server.engine.cpu import embedding_plan, layer_plan
from lora_compose.server.engine.cpu.batch import Members, Need, Work, share_rows
from lora_compose.server.engine.cpu.embedding_layers import GroupedLogitsProcessor, padded
from lora_compose.server.engine.cpu.packed_factors import EmbeddingPack, PackedPair, pack_layer
from lora_compose.server.engine.cpu.plans import Member
from lora_compose.server.engine.cpu.punica_wrapper import GroupedPunicaWrapper

V, D, PADDED = 11, 6, 16
EMBEDDING, HEAD = nn.Identity(), torch.empty(0)
torch.manual_seed(2)
FACTORS = {name: (torch.randn(r, D), torch.randn(V, r)) for name, r in {"a": 1, "b": 5, "c": 8}.items()}
MEMBERS: dict[str, Member] = {"without": Member({})}
for name, (lora_a, lora_b) in FACTORS.items():
    pack = pack_layer([PackedPair(lora_A=lora_a, lora_B=padded(lora_b, PADDED))], [PADDED])
    assert pack is not None
    MEMBERS[name] = Member({id(HEAD): pack}, {id(EMBEDDING): EmbeddingPack(lora_a, lora_b)})

WANTED = st.dictionaries(st.sampled_from(sorted(MEMBERS)), st.sampled_from([1.0, 0.5, -2.0]), max_size=3)
REQUESTS = st.lists(st.tuples(WANTED, st.integers(0, 4)), min_size=1, max_size=8)
PATHS = {"the kernel": 1 << 30, "torch": -1}


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (embedding_plan, layer_plan):
        monkeypatch.setattr(module, "SMALL_SHARE", PATHS[request.param])


def wrapper() -> GroupedPunicaWrapper:
    made = GroupedPunicaWrapper.__new__(GroupedPunicaWrapper)
    made._set_up()
    return made


def delta(wanted: Members) -> torch.Tensor:
    """`Σ w B A`, (V, D) in float64."""
    known = {name: weight for name, weight in wanted.items() if name in FACTORS}
    parts = (w * FACTORS[n][1].double() @ FACTORS[n][0].double() for n, w in known.items())
    return sum(parts, torch.zeros(V, D, dtype=torch.double))


def rows_of(requests: list[tuple[Members, int]]) -> list[Members]:
    return [wanted for wanted, count in requests for _ in range(count)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(REQUESTS, min_size=1, max_size=4))
@pytest.mark.usefixtures("path")
def test_every_row_of_the_embedding_gets_its_own_sum(batches: list[list[tuple[Members, int]]]) -> None:
    made = wrapper()
    for requests in batches:
        made.begin_embedding(share_rows(*map(list, zip(*requests, strict=True))), MEMBERS.__getitem__)
        rows = rows_of(requests)
        for _ in range(2):
            assert_embedded(made, rows)


def assert_embedded(made: GroupedPunicaWrapper, rows: list[Members]) -> None:
    tokens, before = torch.randint(V, (len(rows),), dtype=torch.int32), torch.randn(len(rows), D)
    y = before.clone()
    made.add_embedding(y, tokens, EMBEDDING)
    for row, wanted in enumerate(rows):
        expected = before[row].double() + delta(wanted)[tokens[row]]
        torch.testing.assert_close(y[row].double(), expected, atol=1e-5, rtol=1e-5)
        if not wanted.keys() & FACTORS.keys():
            assert torch.equal(y[row], before[row])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(REQUESTS)
@pytest.mark.usefixtures("path")
def test_every_row_of_logits_gets_its_own_sum(requests: list[tuple[Members, int]]) -> None:
    made, rows = wrapper(), rows_of(requests)
    needs = [Need(wanted) for wanted, _ in requests]
    made.begin_head(Work.of(needs, [count for _, count in requests]), MEMBERS.__getitem__)
    x, before = torch.randn(len(rows), D), torch.randn(len(rows), PADDED)
    y = before.clone()
    made.add_lora_logits(y, x, HEAD, HEAD, 1.0)
    for row, wanted in enumerate(rows):
        expected = before[row, :V].double() + delta(wanted) @ x[row].double()
        torch.testing.assert_close(y[row, :V].double(), expected, atol=1e-4, rtol=1e-4)
        assert torch.equal(y[row, V:], before[row, V:])
        if not wanted.keys() & FACTORS.keys():
            assert torch.equal(y[row], before[row])


def test_logits_of_another_dtype_or_layout_get_the_same_sum() -> None:
    made = wrapper()
    made.begin_head(Work.of([Need({"b": 0.5})], [3]), MEMBERS.__getitem__)
    x, before = torch.randn(3, D), torch.randn(3, PADDED)
    expected = before[:, :V].double() + x.double() @ delta({"b": 0.5}).T
    for y in (before.double(), before.T.contiguous().T):
        made.add_lora_logits(y, x, HEAD, HEAD, 1.0)
        torch.testing.assert_close(y[:, :V].double(), expected, atol=1e-4, rtol=1e-4)


def test_a_token_that_the_factors_do_not_know_changes_nothing() -> None:
    made = wrapper()
    made.begin_embedding(share_rows([{"a": 1.0}], [2]), MEMBERS.__getitem__)
    y = torch.ones(2, D)
    made.add_embedding(y, torch.tensor([V, -1]), EMBEDDING)
    assert torch.equal(y, torch.ones(2, D))


def test_bfloat16_goes_through_torch() -> None:
    made, half = wrapper(), torch.bfloat16
    lora_a, lora_b = (factor.to(half) for factor in FACTORS["b"])
    member = Member({}, {id(EMBEDDING): EmbeddingPack(lora_a, lora_b)})
    made.begin_embedding(share_rows([{"b": 0.5}, {}], [2, 1]), lambda _: member)
    y = torch.zeros(3, D, dtype=half)
    made.add_embedding(y, torch.tensor([3, 4, 5]), EMBEDDING)
    torch.testing.assert_close(y[:2].double(), delta({"b": 0.5})[3:5], atol=0.05, rtol=0.05)
    assert not y[2].any()


def test_too_few_rows_are_an_error_and_not_a_write_beyond_them() -> None:
    made = wrapper()
    made.begin_embedding(share_rows([{"a": 1.0}], [5]), MEMBERS.__getitem__)
    with pytest.raises(IndexError, match="row 4"):
        made.add_embedding(torch.ones(2, D), torch.tensor([1, 2]), EMBEDDING)


def test_the_bytes_of_a_member_count_both_ends() -> None:
    lora_a, lora_b = FACTORS["b"]
    head = MEMBERS["b"].packs[id(HEAD)]
    assert MEMBERS["b"].nbytes == head.nbytes + lora_a.nbytes + lora_b.nbytes


def test_the_head_takes_no_memory_for_slots() -> None:
    layer = GroupedLogitsProcessor.__new__(GroupedLogitsProcessor)
    nn.Module.__init__(layer)
    layer.sharded_to_full_mapping = None
    layer.create_lora_weights(max_loras=8)
    assert layer.lora_a_stacked.numel() == 0
