"""A batch, as the kernels see it: which rows want which member of the store, and with what weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

Members = Mapping[str, float]
"""A request's adapters: directory in the store to weight, none of weight 0."""


@dataclass(frozen=True)
class Share:
    """The rows that want one member: `begin:end` of the batch's."""

    member: str
    begin: int
    end: int


@dataclass(frozen=True, eq=False)
class Batch:
    """Each member's rows, one member after another; rows without an adapter are in no share."""

    shares: tuple[Share, ...]
    rows: np.ndarray
    """`(n,)`, int64, ascending in each share."""
    weights: np.ndarray
    """`(n,)`, float32."""
    height: int
    """Rows a batch has at least."""


def share_rows(wanted: Sequence[Members], token_counts: Sequence[int]) -> Batch:
    """The shares of a batch in which request i has `token_counts[i]` rows, one request after another.

    They are in the order of their members' names, so that a row's sum does not depend on other rows.
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
        begin = len(rows)
        for request in requests[member]:
            rows += range(starts[request], starts[request + 1])
            weights += [wanted[request][member]] * token_counts[request]
        shares.append(Share(member, begin, len(rows)))
    height = max(rows, default=-1) + 1
    return Batch(tuple(shares), np.array(rows, np.int64), np.array(weights, np.float32), height)
