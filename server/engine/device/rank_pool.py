"""Which rows of the pools on the device hold which adapter. One numbering serves the pools of all layers.

An adapter of rank r takes any r rows, so memory is never fragmented. If rows are missing, the adapters that
were used least recently leave. The pools have a row for each rank of the largest batch that vLLM schedules:
`max_loras` compositions of at most `max_lora_rank`, and the fused composition, which residuals subtract.
"""

from collections import OrderedDict
from collections.abc import Collection
from heapq import heapify, heappop, heappush

Rows = tuple[int, ...]
"""The pool's rows of an adapter, one for each rank."""


class RankPool:
    """Rows by the adapter's name."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._free = list(range(size))
        heapify(self._free)
        self._rows: OrderedDict[str, Rows] = OrderedDict()
        """The least recently used adapter first."""

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    def rows(self, name: str) -> Rows:
        """The rows of an adapter that has some. It counts as used now."""
        self._rows.move_to_end(name)
        return self._rows[name]

    def allocate(self, name: str, rank: int, kept: Collection[str]) -> Rows:
        """Give a new adapter its rows. None of `kept` leaves.

        Raises RuntimeError if the rows that may be freed do not suffice; then nothing has changed.
        """
        leaving, count = [], len(self._free)
        for other, rows in self._rows.items():
            if count >= rank:
                break
            if other not in kept:
                leaving.append(other)
                count += len(rows)
        if count < rank:
            raise RuntimeError(f"rank {rank} does not fit: {count} of {self.size} ranks can be freed")
        for other in leaving:
            self.free(other)
        self._rows[name] = tuple(heappop(self._free) for _ in range(rank))
        return self._rows[name]

    def free(self, name: str) -> None:
        """Take an adapter's rows, if it has some."""
        for row in self._rows.pop(name, ()):
            heappush(self._free, row)

    def check_integrity(self) -> None:
        """Raise AssertionError unless each row is free or belongs to one adapter."""
        used = [row for rows in self._rows.values() for row in rows]
        assert sorted([*used, *self._free]) == list(range(self.size))
