"""Spaces refusals in time.

Refusals that are sent at one time make one long turn of the event loop, in which no other client gets its
answer: with 400 connections 50 ms. Their clients also send again at one time.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

REFUSALS_PER_SECOND = 50
MAX_SECONDS = 10.0
"""The longest time that a refusal waits for those before it."""


@dataclass
class Pace:
    """At most `per_second` times a second, by a monotonic clock. A later one waits at most MAX_SECONDS."""

    per_second: float = REFUSALS_PER_SECOND
    clock: Callable[[], float] = time.monotonic
    _next: float = field(init=False, default=float("-inf"))

    def delay(self, after: float = 0.0) -> float:
        """Seconds until the next free time that is at least `after` seconds from now. That time is taken."""
        now = self.clock()
        at = min(max(self._next, now + after), now + max(after, MAX_SECONDS))
        self._next = max(self._next, at + 1 / self.per_second)
        return at - now
