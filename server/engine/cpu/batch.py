"""A batch, as the kernels need it: which rows use which member of the store, and with what weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

Members = Mapping[str, float]
"""A request's adapters: directory in the store to weight. No weight is 0."""


@dataclass(frozen=True)
class Share:
    """The rows that use one member: `start:end` of the batch's `rows` and `weights`."""

    member: str
    start: int
    end: int


@dataclass(frozen=True, eq=False)
class Batch:
    """The rows of each member, one member after another. Rows without an adapter are in no share."""

    shares: tuple[Share, ...]
    rows: np.ndarray
    """`(n,)`, int64, ascending in each share."""
    weights: np.ndarray
    """`(n,)`, float32."""
    height: int
    """The smallest number of rows that the batch can have: its last row with an adapter, plus 1."""


def share_rows(wanted: Sequence[Members], token_counts: Sequence[int]) -> Batch:
    """The shares of a batch in which request i has `token_counts[i]` rows, one request after another.

    Shares are sorted by member, so that the sum for a row does not depend on other rows.
    """
    requests: dict[str, list[int]] = {}
    for request, members in enumerate(wanted):
        for member in members:
            requests.setdefault(member, []).append(request)
    starts = [0, *accumulate(token_counts)]
    shares: list[Share] = []
    rows: list[int] = []
    weights: list[float] = []
    for member in sorted(requests):
        start = len(rows)
        for request in requests[member]:
            rows += range(starts[request], starts[request + 1])
            weights += [wanted[request][member]] * token_counts[request]
        shares.append(Share(member, start, len(rows)))
    height = max(rows, default=-1) + 1
    return Batch(tuple(shares), np.array(rows, np.int64), np.array(weights, np.float32), height)
