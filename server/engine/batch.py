"""A batch, as the kernels see it: which rows ask for which members of the store, and with what weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Members = Mapping[str, float]
"""A request's adapters: directory in the store to weight, none of weight 0."""


@dataclass(frozen=True, eq=False)
class Group:
    """Rows that ask for the same members."""

    members: tuple[str, ...]
    rows: slice
    """Where they are in the batch's order."""
    weights: np.ndarray | None
    """`(rows, members)`, or `(members,)` where all rows agree; None where all weights are 1."""


@dataclass(frozen=True, eq=False)
class Batch:
    """The groups, and the order of rows that puts each group's together; rows without an adapter are out."""

    order: slice | np.ndarray
    groups: tuple[Group, ...]
    rows: int
    """Of the largest group."""
    repeats: bool
    """Whether the next step is likely to have the same rows: each request has one, it is decoding."""


def group_rows(wanted: Sequence[Members], token_counts: Sequence[int]) -> Batch:
    """Group a batch's rows; request i has `token_counts[i]` of them, one after another."""
    requests: dict[tuple[str, ...], list[int]] = {}
    for request, members in enumerate(wanted):
        if members:
            requests.setdefault(tuple(sorted(members)), []).append(request)
    counts = np.asarray(token_counts, dtype=np.intp)
    starts = np.cumsum(counts) - counts
    orders, groups, row = [], [], 0
    for names, own in requests.items():
        for request in own:
            orders.append(np.arange(starts[request], starts[request] + counts[request]))
        count = int(counts[own].sum())
        groups.append(Group(names, slice(row, row + count), _weights(names, own, wanted, counts)))
        row += count
    order = np.concatenate(orders) if orders else np.empty(0, dtype=np.intp)
    largest = max((group.rows.stop - group.rows.start for group in groups), default=0)
    return Batch(_as_slice(order), tuple(groups), largest, bool((counts == 1).all()))


def _weights(
    members: tuple[str, ...], requests: Sequence[int], wanted: Sequence[Members], counts: np.ndarray
) -> np.ndarray | None:
    weights = np.array([[wanted[request][m] for m in members] for request in requests], dtype=np.float32)
    if (weights == 1).all():
        return None
    if (weights == weights[0]).all():
        return weights[0]
    return np.repeat(weights, counts[list(requests)], axis=0)


def _as_slice(order: np.ndarray) -> slice | np.ndarray:
    """A slice where the rows are adjacent and in order, so that no copy is made."""
    if len(order) and (np.diff(order) != 1).any():
        return order
    return slice(int(order[0]), int(order[-1]) + 1) if len(order) else slice(0, 0)
