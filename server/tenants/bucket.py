"""A rate, as a bucket that fills over time. It can go into debt: what an answer costs is known afterwards."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Bucket:
    """Holds `amount`, full at first, and fills that much every `seconds` (a monotonic clock's)."""

    amount: float
    seconds: float
    clock: Callable[[], float] = time.monotonic
    _level: float = field(init=False)
    _since: float = field(init=False)

    def __post_init__(self) -> None:
        self._level, self._since = self.amount, self.clock()

    def wait(self, cost: float) -> float:
        """Seconds until `cost` could be taken without debt; 0 now; infinite if it never fits."""
        missing = cost - self._filled()
        if missing <= 0:
            return 0.0
        return missing * self.seconds / self.amount if cost <= self.amount else float("inf")

    def take(self, cost: float) -> None:
        """Take it, into debt if need be."""
        self._level = self._filled() - cost

    def _filled(self) -> float:
        now = self.clock()
        gained = (now - self._since) * self.amount / self.seconds
        self._level, self._since = min(self.amount, self._level + gained), now
        return self._level
