"""The laws of a merge, each compared with float64 sums of deltas that numpy computed."""

import pickle
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from lora_compose.adapters.composition.composition import NEEDS_DENSITY, SEEDED, MethodOptions
from lora_compose.adapters.errors import AdapterRejected, InvalidRequest
from lora_compose.adapters.merging.merge import MergeBase, MergeInput, build
from lora_compose.adapters.merging.methods import METHODS
from lora_compose.adapters.merging.report import MergeReport
from lora_compose.adapters.peft.checkpoint import open_adapter
from tests.adapters.written_adapters import (
    SHAPES,
    Deltas,
    Written,
    difference,
    norm,
    read_peft,
    weighted_sum,
    write_peft,
)

THIN = [name for name, row in METHODS.items() if not row.elementwise]


class Merger:
    """Three adapters with different ranks, scalings and kinds, and a directory for merges."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.a = write_peft(root / "a", seed=1, rank=3, alpha=5)
        self.b = write_peft(root / "b", seed=2, rank=2, alpha=3, use_rslora=True)
        self.c = write_peft(root / "c", seed=3, rank=4, alpha=1)
        self.report: MergeReport | None = None

    def merge(self, method: str, *terms: tuple[Written, float], **options: object) -> Deltas:
        if method in NEEDS_DENSITY:
            options = {"density": 0.5, **options}
        inputs = [MergeInput(written.directory, weight) for written, weight in terms]
        output = self.root / f"merge{len(list(self.root.iterdir()))}"
        self.report = build(method, inputs, MethodOptions(**options), output, MergeBase("base"))  # type: ignore[arg-type]
        self.output = output
        return read_peft(output)

    def bytes(self) -> tuple[bytes, ...]:
        return tuple(path.read_bytes() for path in sorted(self.output.iterdir()))


@pytest.fixture
def merger(tmp_path: Path) -> Merger:
    return Merger(tmp_path)


def close(left: Deltas, right: Deltas, tolerance: float = 2e-6) -> bool:
    return difference(left, right) <= tolerance * max(norm(left), norm(right))


@pytest.mark.parametrize("method", METHODS)
def test_one_adapter_at_weight_1_and_density_1_is_itself(merger: Merger, method: str) -> None:
    options = {"density": 1.0} if method in NEEDS_DENSITY else {}
    assert close(merger.merge(method, (merger.b, 1.0), **options), merger.b.deltas)
    assert merger.report is not None
    assert merger.report.relative_error is not None
    assert merger.report.relative_error < 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_negative_weights_negate(merger: Merger, method: str) -> None:
    plus = merger.merge(method, (merger.a, 0.5), (merger.b, 2.0), rank=None)
    minus = merger.merge(method, (merger.a, -0.5), (merger.b, -2.0), rank=None)
    assert close(minus, weighted_sum((plus, -1.0)))


@pytest.mark.parametrize("method", METHODS)
def test_an_adapter_minus_the_same_bytes_is_exactly_zero(merger: Merger, method: str) -> None:
    twin = write_peft(merger.root / "twin", seed=1, rank=3, alpha=5)
    result = merger.merge(method, (merger.a, 1.0), (twin, -1.0))
    assert result.keys() == SHAPES.keys()
    assert norm(result) == 0.0
    assert merger.report is not None
    assert merger.report.relative_error == 0.0


@pytest.mark.parametrize("method", METHODS)
def test_order_does_not_change_a_byte(merger: Merger, method: str) -> None:
    terms = [(merger.a, 0.5), (merger.b, -2.0), (merger.c, 1.0)]
    merger.merge(method, *terms)
    forward = merger.bytes()
    merger.merge(method, *reversed(terms))
    assert merger.bytes() == forward


@pytest.mark.parametrize("method", METHODS)
def test_the_global_generator_is_neither_read_nor_moved(merger: Merger, method: str) -> None:
    before = torch.get_rng_state()
    merger.merge(method, (merger.a, 0.5), (merger.c, 1.0))
    first = merger.bytes()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    merger.merge(method, (merger.a, 0.5), (merger.c, 1.0))
    torch.set_rng_state(before)
    assert merger.bytes() == first


@pytest.mark.parametrize("method", ["stack", "cat", "linear"])
def test_an_exact_method_is_the_weighted_sum_of_true_deltas(merger: Merger, method: str) -> None:
    result = merger.merge(method, (merger.a, 0.7), (merger.b, -1.3), (merger.c, 2.0))
    exact = weighted_sum((merger.a.deltas, 0.7), (merger.b.deltas, -1.3), (merger.c.deltas, 2.0))
    assert close(result, exact)
    assert open_adapter(merger.output).rank == 3 + 2 + 4


def test_svd_at_full_rank_is_the_stack(merger: Merger) -> None:
    result = merger.merge("svd", (merger.a, 0.7), (merger.c, 2.0), rank=7)
    assert close(result, weighted_sum((merger.a.deltas, 0.7), (merger.c.deltas, 2.0)))


@pytest.mark.parametrize("method", ["svd", "linear"])
def test_a_truncated_sum_is_the_best_of_its_rank(merger: Merger, method: str) -> None:
    result = merger.merge(method, (merger.a, 0.7), (merger.c, 2.0), rank=3)
    for name, exact in weighted_sum((merger.a.deltas, 0.7), (merger.c.deltas, 2.0)).items():
        dropped = np.linalg.svd(exact, compute_uv=False)[3:]
        assert np.linalg.norm(result[name] - exact) == pytest.approx(np.linalg.norm(dropped), rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_the_reported_error_is_the_true_one(merger: Merger, method: str) -> None:
    result = merger.merge(method, (merger.a, 0.7), (merger.b, -1.0), (merger.c, 2.0))
    exact = weighted_sum((merger.a.deltas, 0.7), (merger.b.deltas, -1.0), (merger.c.deltas, 2.0))
    assert merger.report is not None
    assert merger.report.relative_error == pytest.approx(difference(result, exact) / norm(exact), abs=1e-9)
    for name, module in merger.report.modules.items():
        true = np.linalg.norm(result[name] - exact[name]) / np.linalg.norm(exact[name])
        assert module.relative_error == pytest.approx(true, abs=1e-9)


def test_the_report_counts_the_files_and_the_modules_as_they_are(merger: Merger) -> None:
    merger.merge("svd", (merger.a, 1.0), (merger.b, 1.0))
    assert merger.report is not None
    assert merger.report.bytes == sum(len(content) for content in merger.bytes())
    assert merger.report.modules.keys() == SHAPES.keys()
    assert merger.report.rank == open_adapter(merger.output).rank == 3


def test_sign_conflict_is_that_of_the_weighted_dense_deltas(merger: Merger) -> None:
    merger.merge("stack", (merger.a, 1.0), (merger.b, -2.0))
    assert merger.report is not None
    for name, module in merger.report.modules.items():
        apart = np.sign(merger.a.deltas[name]) == np.sign(merger.b.deltas[name])
        assert module.sign_conflict == pytest.approx(apart.mean())


@pytest.mark.parametrize("method", METHODS)
def test_a_module_that_one_member_lacks_is_a_zero_there(merger: Merger, method: str) -> None:
    lone = "model.layers.0.mlp.down_proj"
    only = write_peft(merger.root / "only", seed=9, rank=2, shapes={lone: SHAPES[lone]})
    options = {"density": 1.0} if method in NEEDS_DENSITY else {}
    result = merger.merge(method, (merger.a, 1.0), (only, 1.0), **options)
    others = {name: delta for name, delta in merger.a.deltas.items() if name != lone}
    assert close({name: result[name] for name in others}, others)


@pytest.mark.parametrize("method", THIN)
def test_no_rank_exceeds_the_shorter_side_and_nothing_is_lost_by_it(merger: Merger, method: str) -> None:
    wide = [write_peft(merger.root / f"wide{seed}", seed=seed, rank=8) for seed in (11, 12)]
    options = {"rank": 99} if METHODS[method].takes_rank else {}
    result = merger.merge(method, (wide[0], 1.0), (wide[1], 0.5), **options)
    assert close(result, weighted_sum((wide[0].deltas, 1.0), (wide[1].deltas, 0.5)))
    for name, module in open_adapter(merger.output).modules.items():
        assert module.rank == min(SHAPES[name])


@pytest.mark.parametrize("method", METHODS)
def test_the_default_rank_is_what_the_row_says(merger: Merger, method: str) -> None:
    merger.merge(method, (merger.a, 1.0), (merger.c, 1.0))
    expected = {"sum": 3 + 4, "largest": 4}[METHODS[method].default_rank]
    assert {module.rank for module in open_adapter(merger.output).modules.values()} == {expected}


@pytest.mark.parametrize("method", sorted(SEEDED))
def test_a_seed_gives_one_result_and_another_seed_another(merger: Merger, method: str) -> None:
    first = merger.merge(method, (merger.a, 1.0), (merger.c, 1.0), seed=7)
    again = merger.merge(method, (merger.a, 1.0), (merger.c, 1.0), seed=7)
    other = merger.merge(method, (merger.a, 1.0), (merger.c, 1.0), seed=8)
    assert difference(first, again) == 0.0
    assert not close(first, other, 0.1)


def test_dare_drops_the_same_entries_whatever_stands_beside(merger: Merger) -> None:
    full = {"density": 0.5, "rank": 10}
    together = merger.merge("dare_linear", (merger.a, 1.0), (merger.c, 1.0), **full)
    alone = [merger.merge("dare_linear", (written, 1.0), **full) for written in (merger.a, merger.c)]
    assert close(together, weighted_sum((alone[0], 1.0), (alone[1], 1.0)), 1e-5)


def test_dare_drops_other_entries_in_each_member_and_each_module(merger: Merger) -> None:
    masks = [
        np.abs(result[f"model.layers.{layer}.self_attn.q_proj"]) > 1e-4
        for written in (merger.a, merger.c)
        for result in [merger.merge("dare_linear", (written, 1.0), rank=10)]
        for layer in (0, 1)
    ]
    for left, right in combinations(masks, 2):
        assert 0.3 < np.mean(left == right) < 0.7


def test_dare_linear_at_full_rank_is_the_stack_on_average(merger: Merger) -> None:
    drawn = [merger.merge("dare_linear", (merger.a, 1.0), seed=seed, rank=10) for seed in range(150)]
    mean = weighted_sum(*((deltas, 1 / len(drawn)) for deltas in drawn))
    # at density 1/2 the error of the mean is expected at |delta| / sqrt(150)
    assert difference(mean, merger.a.deltas) < 1.3 * norm(merger.a.deltas) / np.sqrt(len(drawn))


def test_progress_counts_every_module_once(merger: Merger) -> None:
    seen: list[tuple[int, int]] = []
    inputs = [MergeInput(merger.a.directory, 1.0)]
    build(
        "stack",
        inputs,
        MethodOptions(),
        merger.root / "out",
        MergeBase("base"),
        lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_arguments_and_report_can_cross_a_process_border(merger: Merger) -> None:
    merger.merge("svd", (merger.a, 1.0))
    sent = (build, [MergeInput(merger.a.directory, 1.0)], MethodOptions(rank=2), merger.report)
    assert pickle.loads(pickle.dumps(sent)) == sent


@pytest.mark.parametrize(
    ("method", "weight", "options", "code", "param"),
    [
        ("blend", 1.0, MethodOptions(), "unknown_method", "method"),
        ("stack", float("nan"), MethodOptions(), "invalid_weight", "weight"),
        ("ties", 1e300, MethodOptions(density=0.5), "invalid_weight", "weight"),
        ("ties", 1.0, MethodOptions(), "invalid_composition", "density"),
        ("ties", 1.0, MethodOptions(density=0.0), "invalid_composition", "density"),
        ("dare_linear", 1.0, MethodOptions(density=1.5), "invalid_composition", "density"),
        ("svd", 1.0, MethodOptions(rank=0), "invalid_composition", "rank"),
        ("stack", 1.0, MethodOptions(rank=4), "invalid_composition", "rank"),
    ],
)
def test_what_is_not_a_merge_is_refused_before_any_work(
    merger: Merger, method: str, weight: float, options: MethodOptions, code: str, param: str
) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        build(
            method, [MergeInput(merger.a.directory, weight)], options, merger.root / "out", MergeBase("base")
        )
    assert (refusal.value.code, refusal.value.param) == (code, param)
    assert not (merger.root / "out").exists()


def test_members_of_different_bases_are_refused(merger: Merger) -> None:
    other = write_peft(merger.root / "other", seed=5, shapes={"model.layers.0.self_attn.q_proj": (24, 10)})
    with pytest.raises(AdapterRejected) as refusal:
        merger.merge("svd", (merger.a, 1.0), (other, 1.0))
    assert refusal.value.code == "wrong_base"


@pytest.mark.parametrize("method", METHODS)
def test_a_sum_too_large_for_float32_is_refused(merger: Merger, method: str) -> None:
    huge = write_peft(merger.root / "huge", seed=5, alpha=1e6)
    with pytest.raises(AdapterRejected) as refusal:
        merger.merge(method, (huge, 1e36), (merger.a, 1.0))
    assert refusal.value.code == "non_finite_weights"
