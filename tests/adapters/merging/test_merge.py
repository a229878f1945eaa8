"""The laws of a merge, each against float64 sums of deltas that numpy made."""

import pickle
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from lora_compose.adapters.composition.composition import NEEDS_DENSITY, SEEDED, MethodOptions
from lora_compose.adapters.errors import AdapterRejected, InvalidRequest
from lora_compose.adapters.merging.merge import Ingredient, build
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


class Kitchen:
    """Three adapters of different rank, scaling and kind, and a place for merges."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.a = write_peft(root / "a", seed=1, rank=3, alpha=5)
        self.b = write_peft(root / "b", seed=2, rank=2, alpha=3, use_rslora=True)
        self.c = write_peft(root / "c", seed=3, rank=4, alpha=1)
        self.report: MergeReport | None = None

    def merge(self, method: str, *terms: tuple[Written, float], **options: object) -> Deltas:
        if method in NEEDS_DENSITY:
            options = {"density": 0.5, **options}
        ingredients = [Ingredient(written.directory, weight) for written, weight in terms]
        output = self.root / f"merge{len(list(self.root.iterdir()))}"
        self.report = build(method, ingredients, MethodOptions(**options), output, "base")  # type: ignore[arg-type]
        self.output = output
        return read_peft(output)

    def bytes(self) -> tuple[bytes, ...]:
        return tuple(path.read_bytes() for path in sorted(self.output.iterdir()))


@pytest.fixture
def kitchen(tmp_path: Path) -> Kitchen:
    return Kitchen(tmp_path)


def close(left: Deltas, right: Deltas, tolerance: float = 2e-6) -> bool:
    return difference(left, right) <= tolerance * max(norm(left), norm(right))


@pytest.mark.parametrize("method", METHODS)
def test_one_adapter_at_weight_1_and_density_1_is_itself(kitchen: Kitchen, method: str) -> None:
    options = {"density": 1.0} if method in NEEDS_DENSITY else {}
    assert close(kitchen.merge(method, (kitchen.b, 1.0), **options), kitchen.b.deltas)
    assert kitchen.report is not None
    assert kitchen.report.relative_error is not None
    assert kitchen.report.relative_error < 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_negative_weights_negate(kitchen: Kitchen, method: str) -> None:
    plus = kitchen.merge(method, (kitchen.a, 0.5), (kitchen.b, 2.0), rank=None)
    minus = kitchen.merge(method, (kitchen.a, -0.5), (kitchen.b, -2.0), rank=None)
    assert close(minus, weighted_sum((plus, -1.0)))


@pytest.mark.parametrize("method", METHODS)
def test_an_adapter_minus_the_same_bytes_is_exactly_zero(kitchen: Kitchen, method: str) -> None:
    twin = write_peft(kitchen.root / "twin", seed=1, rank=3, alpha=5)
    result = kitchen.merge(method, (kitchen.a, 1.0), (twin, -1.0))
    assert result.keys() == SHAPES.keys()
    assert norm(result) == 0.0
    assert kitchen.report is not None
    assert kitchen.report.relative_error == 0.0


@pytest.mark.parametrize("method", METHODS)
def test_order_does_not_change_a_byte(kitchen: Kitchen, method: str) -> None:
    terms = [(kitchen.a, 0.5), (kitchen.b, -2.0), (kitchen.c, 1.0)]
    kitchen.merge(method, *terms)
    forward = kitchen.bytes()
    kitchen.merge(method, *reversed(terms))
    assert kitchen.bytes() == forward


@pytest.mark.parametrize("method", METHODS)
def test_the_global_generator_is_neither_read_nor_moved(kitchen: Kitchen, method: str) -> None:
    before = torch.get_rng_state()
    kitchen.merge(method, (kitchen.a, 0.5), (kitchen.c, 1.0))
    first = kitchen.bytes()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    kitchen.merge(method, (kitchen.a, 0.5), (kitchen.c, 1.0))
    torch.set_rng_state(before)
    assert kitchen.bytes() == first


@pytest.mark.parametrize("method", ["stack", "cat", "linear"])
def test_an_exact_method_is_the_weighted_sum_of_true_deltas(kitchen: Kitchen, method: str) -> None:
    result = kitchen.merge(method, (kitchen.a, 0.7), (kitchen.b, -1.3), (kitchen.c, 2.0))
    exact = weighted_sum((kitchen.a.deltas, 0.7), (kitchen.b.deltas, -1.3), (kitchen.c.deltas, 2.0))
    assert close(result, exact)
    assert open_adapter(kitchen.output).rank == 3 + 2 + 4


def test_svd_at_full_rank_is_the_stack(kitchen: Kitchen) -> None:
    result = kitchen.merge("svd", (kitchen.a, 0.7), (kitchen.c, 2.0), rank=7)
    assert close(result, weighted_sum((kitchen.a.deltas, 0.7), (kitchen.c.deltas, 2.0)))


@pytest.mark.parametrize("method", ["svd", "linear"])
def test_a_truncated_sum_is_the_best_of_its_rank(kitchen: Kitchen, method: str) -> None:
    result = kitchen.merge(method, (kitchen.a, 0.7), (kitchen.c, 2.0), rank=3)
    for name, exact in weighted_sum((kitchen.a.deltas, 0.7), (kitchen.c.deltas, 2.0)).items():
        dropped = np.linalg.svd(exact, compute_uv=False)[3:]
        assert np.linalg.norm(result[name] - exact) == pytest.approx(np.linalg.norm(dropped), rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_the_reported_error_is_the_true_one(kitchen: Kitchen, method: str) -> None:
    result = kitchen.merge(method, (kitchen.a, 0.7), (kitchen.b, -1.0), (kitchen.c, 2.0))
    exact = weighted_sum((kitchen.a.deltas, 0.7), (kitchen.b.deltas, -1.0), (kitchen.c.deltas, 2.0))
    assert kitchen.report is not None
    assert kitchen.report.relative_error == pytest.approx(difference(result, exact) / norm(exact), abs=1e-9)
    for name, module in kitchen.report.modules.items():
        true = np.linalg.norm(result[name] - exact[name]) / np.linalg.norm(exact[name])
        assert module.relative_error == pytest.approx(true, abs=1e-9)


def test_the_report_counts_the_files_and_the_modules_as_they_are(kitchen: Kitchen) -> None:
    kitchen.merge("svd", (kitchen.a, 1.0), (kitchen.b, 1.0))
    assert kitchen.report is not None
    assert kitchen.report.bytes == sum(len(content) for content in kitchen.bytes())
    assert kitchen.report.modules.keys() == SHAPES.keys()
    assert kitchen.report.rank == open_adapter(kitchen.output).rank == 3


def test_sign_conflict_is_that_of_the_weighted_dense_deltas(kitchen: Kitchen) -> None:
    kitchen.merge("stack", (kitchen.a, 1.0), (kitchen.b, -2.0))
    assert kitchen.report is not None
    for name, module in kitchen.report.modules.items():
        apart = np.sign(kitchen.a.deltas[name]) == np.sign(kitchen.b.deltas[name])
        assert module.sign_conflict == pytest.approx(apart.mean())


@pytest.mark.parametrize("method", METHODS)
def test_a_module_that_one_member_lacks_is_a_zero_there(kitchen: Kitchen, method: str) -> None:
    lone = "model.layers.0.mlp.down_proj"
    only = write_peft(kitchen.root / "only", seed=9, rank=2, shapes={lone: SHAPES[lone]})
    options = {"density": 1.0} if method in NEEDS_DENSITY else {}
    result = kitchen.merge(method, (kitchen.a, 1.0), (only, 1.0), **options)
    others = {name: delta for name, delta in kitchen.a.deltas.items() if name != lone}
    assert close({name: result[name] for name in others}, others)


@pytest.mark.parametrize("method", THIN)
def test_no_rank_exceeds_the_shorter_side_and_nothing_is_lost_by_it(kitchen: Kitchen, method: str) -> None:
    wide = [write_peft(kitchen.root / f"wide{seed}", seed=seed, rank=8) for seed in (11, 12)]
    options = {"rank": 99} if METHODS[method].takes_rank else {}
    result = kitchen.merge(method, (wide[0], 1.0), (wide[1], 0.5), **options)
    assert close(result, weighted_sum((wide[0].deltas, 1.0), (wide[1].deltas, 0.5)))
    for name, module in open_adapter(kitchen.output).modules.items():
        assert module.rank == min(SHAPES[name])


@pytest.mark.parametrize("method", METHODS)
def test_the_default_rank_is_what_the_row_says(kitchen: Kitchen, method: str) -> None:
    kitchen.merge(method, (kitchen.a, 1.0), (kitchen.c, 1.0))
    expected = {"sum": 3 + 4, "largest": 4}[METHODS[method].default_rank]
    assert {module.rank for module in open_adapter(kitchen.output).modules.values()} == {expected}


@pytest.mark.parametrize("method", sorted(SEEDED))
def test_a_seed_gives_one_result_and_another_seed_another(kitchen: Kitchen, method: str) -> None:
    first = kitchen.merge(method, (kitchen.a, 1.0), (kitchen.c, 1.0), seed=7)
    again = kitchen.merge(method, (kitchen.a, 1.0), (kitchen.c, 1.0), seed=7)
    other = kitchen.merge(method, (kitchen.a, 1.0), (kitchen.c, 1.0), seed=8)
    assert difference(first, again) == 0.0
    assert not close(first, other, 0.1)


def test_dare_drops_the_same_entries_whatever_stands_beside(kitchen: Kitchen) -> None:
    full = {"density": 0.5, "rank": 10}
    together = kitchen.merge("dare_linear", (kitchen.a, 1.0), (kitchen.c, 1.0), **full)
    alone = [kitchen.merge("dare_linear", (one, 1.0), **full) for one in (kitchen.a, kitchen.c)]
    assert close(together, weighted_sum((alone[0], 1.0), (alone[1], 1.0)), 1e-5)


def test_dare_drops_other_entries_in_each_member_and_each_module(kitchen: Kitchen) -> None:
    masks = [
        np.abs(result[f"model.layers.{layer}.self_attn.q_proj"]) > 1e-4
        for one in (kitchen.a, kitchen.c)
        for result in [kitchen.merge("dare_linear", (one, 1.0), rank=10)]
        for layer in (0, 1)
    ]
    for one, two in combinations(masks, 2):
        assert 0.3 < np.mean(one == two) < 0.7


def test_dare_linear_at_full_rank_is_the_stack_on_average(kitchen: Kitchen) -> None:
    drawn = [kitchen.merge("dare_linear", (kitchen.a, 1.0), seed=seed, rank=10) for seed in range(150)]
    mean = weighted_sum(*((deltas, 1 / len(drawn)) for deltas in drawn))
    # at density 1/2 the error of the mean is expected at |delta| / sqrt(150)
    assert difference(mean, kitchen.a.deltas) < 1.3 * norm(kitchen.a.deltas) / np.sqrt(len(drawn))


def test_progress_counts_every_module_once(kitchen: Kitchen) -> None:
    seen: list[tuple[int, int]] = []
    one = [Ingredient(kitchen.a.directory, 1.0)]
    build(
        "stack",
        one,
        MethodOptions(),
        kitchen.root / "out",
        "base",
        lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_arguments_and_report_can_cross_a_process_border(kitchen: Kitchen) -> None:
    kitchen.merge("svd", (kitchen.a, 1.0))
    sent = (build, [Ingredient(kitchen.a.directory, 1.0)], MethodOptions(rank=2), kitchen.report)
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
    kitchen: Kitchen, method: str, weight: float, options: MethodOptions, code: str, param: str
) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        build(method, [Ingredient(kitchen.a.directory, weight)], options, kitchen.root / "out", "base")
    assert (refusal.value.code, refusal.value.param) == (code, param)
    assert not (kitchen.root / "out").exists()


def test_members_of_different_bases_are_refused(kitchen: Kitchen) -> None:
    other = write_peft(kitchen.root / "other", seed=5, shapes={"model.layers.0.self_attn.q_proj": (24, 10)})
    with pytest.raises(AdapterRejected) as refusal:
        kitchen.merge("svd", (kitchen.a, 1.0), (other, 1.0))
    assert refusal.value.code == "wrong_base"


@pytest.mark.parametrize("method", METHODS)
def test_a_sum_too_large_for_float32_is_refused(kitchen: Kitchen, method: str) -> None:
    huge = write_peft(kitchen.root / "huge", seed=5, alpha=1e6)
    with pytest.raises(AdapterRejected) as refusal:
        kitchen.merge(method, (huge, 1e36), (kitchen.a, 1.0))
    assert refusal.value.code == "non_finite_weights"
