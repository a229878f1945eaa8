"""A batch, as the kernels need it: which rows use which member of the store, and with what weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
        for member in members if token_counts[request] else ():
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


@dataclass(frozen=True)
class Need:
    """What the rows of a request need in each layer, in this order."""

    members: Members = field(default_factory=dict)
    """Last: their deltas are added."""
    before: Members = field(default_factory=dict)
    """First: their deltas are added. These are in the base weights, and must not be scaled with them."""
    scaled_by: Members = field(default_factory=dict)
    """Between: the rows are scaled and shifted by these members' DoRA scales and biases (see `row_terms`)."""
    fused: Members = field(default_factory=dict)
    """The members whose DoRA scales are in the base weights, and must be divided out."""


@dataclass(frozen=True, eq=False)
class ScaledShare:
    """The rows that are scaled by the same members: `start:end` of `rows` and `weights`."""

    members: Members
    fused: Members
    only_member: str | None
    """Set if nothing else scales these rows; then each row has its own weight of it."""
    start: int
    end: int


@dataclass(frozen=True, eq=False)
class Scaling:
    """The rows of a batch that are scaled or shifted. Each row is in one share at most."""

    shares: tuple[ScaledShare, ...]
    rows: np.ndarray
    """`(n,)`, int64."""
    weights: np.ndarray
    """`(n,)`, float32."""
    height: int
    """The last row, plus 1."""


@dataclass(frozen=True, eq=False)
class Work:
    """The LoRA work of a batch."""

    before: Batch
    scaling: Scaling
    deltas: Batch

    @classmethod
    def of(cls, needs: Sequence[Need], token_counts: Sequence[int]) -> "Work":
        """The work of a batch in which request i has `token_counts[i]` rows, one request after another."""
        return cls(
            before=share_rows([need.before for need in needs], token_counts),
            scaling=_scaling(needs, token_counts),
            deltas=share_rows([need.members for need in needs], token_counts),
        )

    @property
    def members(self) -> set[str]:
        """Every member that the work uses."""
        shares = (*self.before.shares, *self.deltas.shares)
        scaled = (name for share in self.scaling.shares for name in (*share.members, *share.fused))
        return {*(share.member for share in shares), *scaled}


def _scaling(needs: Sequence[Need], token_counts: Sequence[int]) -> Scaling:
    groups: dict[tuple[object, ...], list[int]] = {}
    for request, need in enumerate(needs):
        if need.scaled_by or need.fused:
            groups.setdefault(_scaling_key(need), []).append(request)
    starts = [0, *accumulate(token_counts)]
    shares: list[ScaledShare] = []
    rows: list[int] = []
    weights: list[float] = []
    for requests in groups.values():
        start, first = len(rows), needs[requests[0]]
        only = _only_member(first)
        for request in requests:
            rows += range(starts[request], starts[request + 1])
            weight = 1.0 if only is None else needs[request].scaled_by[only]
            weights += [weight] * token_counts[request]
        shares.append(ScaledShare(first.scaled_by, first.fused, only, start, len(rows)))
    height = max(rows, default=-1) + 1
    return Scaling(tuple(shares), np.array(rows, np.int64), np.array(weights, np.float32), height)


def _only_member(need: Need) -> str | None:
    return next(iter(need.scaled_by)) if len(need.scaled_by) == 1 and not need.fused else None


def _scaling_key(need: Need) -> tuple[object, ...]:
    only = _only_member(need)
    return (only,) if only is not None else (*need.scaled_by.items(), None, *need.fused.items())
