"""Seconds for steps that take about equally long each."""

from collections.abc import Callable, Iterator
from time import monotonic
from typing import TypeVar

Result = TypeVar("Result")


class TimeBudget:
    """`seconds` from now on. It is over once a step as slow as the slowest so far would end too late."""

    def __init__(self, seconds: float) -> None:
        self._ends_at = monotonic() + seconds
        self._longest = 0.0

    @property
    def is_over(self) -> bool:
        """Whether another step could end too late."""
        return monotonic() + self._longest >= self._ends_at

    def measured(self, step: Callable[[], Result]) -> Result:
        """The result of a step, whose time is measured."""
        started = monotonic()
        found = step()
        self._longest = max(self._longest, monotonic() - started)
        return found

    def steps(self, count: int) -> Iterator[int]:
        """The numbers of at most `count` steps, while there is time. There is always a first step."""
        for step in range(count):
            if step and self.is_over:
                return
            started = monotonic()
            yield step
            self._longest = max(self._longest, monotonic() - started)
