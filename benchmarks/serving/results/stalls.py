"""Finds standstills: times when requests were in flight and no request received a token."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from lora_compose.benchmarks.serving.results.document import RequestRow

SHORTEST = 0.15
"""Seconds. A busy machine alone causes shorter standstills, so they are not counted."""
TIMES_TYPICAL = 8
"""A stall is at least this many times the typical gap of the pass."""


@dataclass(frozen=True)
class Stall:
    """A standstill `at` seconds after the pass began, with the number of `waiting` requests."""

    at: float
    seconds: float
    waiting: int


def stalls(rows: Sequence[RequestRow]) -> list[Stall]:
    """All standstills of one pass."""
    arrivals = sorted(time for row in rows for time in row.times)
    if len(arrivals) < 2:
        return []
    waits = [row.times[0] - row.sent for row in rows if row.times]
    typical = max(median(after - before for before, after in pairwise(arrivals)), 1e-6)
    least = max(SHORTEST, TIMES_TYPICAL * typical, 2 * median(waits))
    standstills = []
    # A standstill ends with a token. It begins at the token before, or later when a request is sent.
    sends = sorted(row.sent for row in rows)
    for before, after in pairwise([min(sends), *arrivals]):
        if after - before < least:
            continue
        waiting = [row for row in rows if row.sent < after and _last_token(row) > before]
        start = max(before, min((row.sent for row in waiting), default=after))
        if waiting and after - start >= least:
            standstills.append(Stall(start, after - start, len(waiting)))
    return standstills


def _last_token(row: RequestRow) -> float:
    """The time of the last token. The stream may have ended later."""
    return row.times[-1] if row.times else row.ended
