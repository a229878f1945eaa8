"""Requests by adapter, in a bounded number of series.

A label per adapter grows with whatever is registered. Here the first names that are asked for get a series
each, the others share one, and a name that is removed gives its series back.
"""

from collections.abc import Iterable

from prometheus_client import Counter

OTHERS = "(others)"
"""No adapter can have this name."""
MAX_NAMES = 100


class AdapterRequests:
    """Counts into `counter`, whose only label is the adapter's name. Belongs to the event loop."""

    def __init__(self, counter: Counter, max_names: int = MAX_NAMES) -> None:
        self._counter = counter
        self._max_names = max_names
        self._names: set[str] = set()

    def count(self, names: Iterable[str]) -> None:
        """One more request that uses these adapters, which all exist."""
        for name in names:
            if len(self._names) < self._max_names:
                self._names.add(name)
            self._counter.labels(name if name in self._names else OTHERS).inc()

    def forget(self, name: str) -> None:
        """The adapter is removed: so is its series, and its place is free."""
        if name in self._names:
            self._names.discard(name)
            self._counter.remove(name)
