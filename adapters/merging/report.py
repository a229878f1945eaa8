"""The report of a merge: how far the result is from the exact stack, and how much its members conflict.

All figures are measured on the factors in the file, after rounding to float32. Nothing here changes a result.
`report_table` shows a report as a table: one line for all modules, then the modules with the largest errors.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

import torch
from rich.filesize import decimal
from rich.table import Table
from torch import Tensor

from lora_compose.adapters.merging.change import Change, distance, norm
from lora_compose.adapters.merging.low_rank import overlap, svd

SAMPLED_ROWS = 256
"""Sign conflicts are counted on at most this many evenly spaced rows, so no dense delta is needed."""


@dataclass(frozen=True)
class ModuleReport:
    """The figures of one module. The members are its weighted deltas w_i * D_i."""

    relative_error: float | None
    """|merge - stack|_F / |stack|_F. None if the stack is zero and the merge is not."""
    sign_conflict: float
    """Share of entries where signs differ, among (sampled) entries where two or more members are non-zero."""
    subspace_overlap: float
    """Mean of `low_rank.overlap` over pairs of members, 0 to 1."""
    rank: int
    members: int
    error_norm: float
    """|merge - stack|_F"""
    stack_norm: float


@dataclass(frozen=True)
class MergeReport:
    """The figures of a whole merge.

    `relative_error` is over all modules together. `sign_conflict` and `subspace_overlap` are means over the
    modules that two or more members have."""

    method: str
    modules: dict[str, ModuleReport]
    relative_error: float | None
    sign_conflict: float
    subspace_overlap: float
    rank: int
    """The largest rank of any module."""
    bytes: int
    """Size of the two files written."""
    seconds: float

    @classmethod
    def of(cls, method: str, modules: Mapping[str, ModuleReport], size: int, seconds: float) -> "MergeReport":
        """Combine the reports of `modules`. `size` is in bytes, `seconds` is wall time."""
        shared = [module for module in modules.values() if module.members > 1]
        return cls(
            method=method,
            modules=dict(modules),
            relative_error=relative(
                math.hypot(*(module.error_norm for module in modules.values())),
                math.hypot(*(module.stack_norm for module in modules.values())),
            ),
            sign_conflict=fmean(module.sign_conflict for module in shared) if shared else 0.0,
            subspace_overlap=fmean(module.subspace_overlap for module in shared) if shared else 0.0,
            rank=max(module.rank for module in modules.values()),
            bytes=size,
            seconds=seconds,
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as a JSON-able dict."""
        return asdict(self)


def measure(
    result: Change, members: Sequence[Change], stack: Change, weight: Tensor | None = None
) -> ModuleReport:
    """Compare the `result` of a module with its exact `stack` (may have rank 0), and its weighted `members`
    with each other. `weight` is the base's, for DoRA. The overlap is that of the members' factors."""
    pairs = list(combinations((svd(member.factors) for member in members), 2))
    error, size = distance(result, stack, weight), norm(stack, weight)
    return ModuleReport(
        relative_error=relative(error, size),
        sign_conflict=sign_conflict(members, weight),
        subspace_overlap=fmean(overlap(left, right) for left, right in pairs) if pairs else 0.0,
        rank=result.factors.rank,
        members=len(members),
        error_norm=error,
        stack_norm=size,
    )


def relative(error: float, size: float) -> float | None:
    """error / size. It is 0 if both are zero, and None if only `size` is zero."""
    if size > 0:
        return error / size
    return None if error > 0 else 0.0


def sign_conflict(members: Sequence[Change], weight: Tensor | None = None) -> float:
    """The share that `ModuleReport.sign_conflict` defines, 0 to 1. `weight` is the base's, for DoRA."""
    rows = members[0].factors.B.shape[0]
    which = slice(None, None, math.ceil(rows / SAMPLED_ROWS))
    balance = members[0].rows(which, weight).float().sign_()
    nonzero = balance.abs()
    for member in members[1:]:
        signs = member.rows(which, weight).float().sign_()
        balance.add_(signs)
        nonzero.add_(signs.abs_())
    shared = int(torch.count_nonzero(nonzero > 1))
    return int(torch.count_nonzero(balance.abs_() != nonzero)) / shared if shared else 0.0


WORST = 5


def report_table(report: MergeReport, worst: int = WORST) -> Table:
    """The overall figures and the `worst` modules by relative error."""
    table = Table("module", "relative error", "sign conflict", "overlap", "rank", box=None, pad_edge=False)
    table.add_row(
        f"[bold]all {len(report.modules)} modules[/]",
        _error(report.relative_error),
        f"{report.sign_conflict:.3f}",
        f"{report.subspace_overlap:.3f}",
        str(report.rank),
    )
    for name, module in sorted(report.modules.items(), key=_badness)[:worst]:
        table.add_row(
            name,
            _error(module.relative_error),
            f"{module.sign_conflict:.3f}",
            f"{module.subspace_overlap:.3f}",
            str(module.rank),
        )
    cost = f"{report.method}, {decimal(report.bytes)}, {report.seconds:.1f} s."
    table.caption = f"{cost} Relative error: Frobenius norm, against the exact stack."
    table.caption_justify = "left"
    return table


def _badness(row: tuple[str, ModuleReport]) -> tuple[float, str]:
    """Sort key: largest error first. A module without a relative error comes before all others."""
    name, module = row
    return (float("-inf") if module.relative_error is None else -module.relative_error, name)


def _error(error: float | None) -> str:
    return "-" if error is None else f"{error:.2e}" if error < 0.001 else f"{error:.3f}"
