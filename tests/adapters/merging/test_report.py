"""The figures of a merge report, on matrices that are small enough to check by hand."""

import json

import pytest
import torch

from lora_compose.adapters.merging.change import Change
from lora_compose.adapters.merging.low_rank import LowRank, concat
from lora_compose.adapters.merging.report import MergeReport, ModuleReport, measure, relative, sign_conflict


def row(*values: float) -> Change:
    """A 1 x n matrix."""
    factors = LowRank(B=torch.ones(1, 1, dtype=torch.float64), A=torch.tensor([values], dtype=torch.float64))
    return Change(factors, None)


def module_report(
    error: float, size: float, members: int = 2, conflict: float = 0.0, rank: int = 2
) -> ModuleReport:
    return ModuleReport(relative(error, size), conflict, conflict, rank, members, error, size)


def test_sign_conflict_counts_entries_where_two_members_pull_apart() -> None:
    assert sign_conflict([row(1, 1, 1, 0, -1), row(1, -2, 0, 0, -3)]) == pytest.approx(1 / 3)
    assert sign_conflict([row(1, -1)]) == 0.0


def test_sign_conflict_of_a_tall_module_is_estimated_from_evenly_spaced_rows() -> None:
    column = torch.ones(1000, 1, dtype=torch.float64)
    agrees = torch.where(torch.arange(1000) < 250, 1.0, -1.0).double()[:, None]
    unit = torch.ones(1, 1, dtype=torch.float64)
    assert sign_conflict([Change(LowRank(B=b, A=unit), None) for b in (column, agrees)]) == pytest.approx(
        0.75, abs=0.01
    )


def test_a_module_is_measured_against_its_stack_and_its_members_against_each_other() -> None:
    members = [row(3, 0), row(0, 4)]
    report = measure(row(3, 3), members, Change(concat([member.factors for member in members]), None))
    assert report.error_norm == pytest.approx(1.0)
    assert report.stack_norm == pytest.approx(5.0)
    assert report.relative_error == pytest.approx(0.2)
    assert report.subspace_overlap == pytest.approx(0.5)  # the outputs are equal, the inputs are orthogonal
    assert (report.rank, report.members, report.sign_conflict) == (1, 2, 0.0)


def test_the_overall_error_pools_all_modules() -> None:
    modules = {"a": module_report(3.0, 6.0), "b": module_report(4.0, 8.0, rank=5)}
    report = MergeReport.of("svd", modules, size=10, seconds=0.5)
    assert report.relative_error == pytest.approx(5 / 10)
    assert report.rank == 5


def test_means_are_over_modules_where_members_meet() -> None:
    modules = {"a": module_report(0.0, 1.0, conflict=0.4), "b": module_report(0.0, 1.0, members=1)}
    report = MergeReport.of("svd", modules, size=10, seconds=0.5)
    assert (report.sign_conflict, report.subspace_overlap) == (0.4, 0.4)


def test_the_error_of_nothing_is_nothing_and_of_something_instead_of_nothing_undefined() -> None:
    assert relative(0.0, 0.0) == 0.0
    assert relative(1.0, 0.0) is None


def test_a_report_survives_json() -> None:
    report = MergeReport.of("ties", {"a": module_report(1.0, 0.0)}, size=10, seconds=0.5)
    again = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert again == report.to_dict()
    assert again["modules"]["a"]["relative_error"] is None
