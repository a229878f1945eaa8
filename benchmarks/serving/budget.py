"""The time that a run may take. It ends the run by leaving out passes, never by stopping one."""

from time import perf_counter

PREPARING = 0.5
"""Share of the time after which no further arm is prepared, so that time is left to measure the others."""


class Budget:
    """`seconds` from now, or no limit. It expects each part to take as long as it last did."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._began = perf_counter()
        self._took: dict[str, float] = {}

    def took(self, what: str, seconds: float) -> None:
        """Note the time that `what` took. Later calls of `allows` expect the same."""
        self._took[what] = seconds

    def allows(self, what: str, seconds: float = 0.0) -> bool:
        """Whether `what` would end in time. If it was not measured before, `seconds` are expected."""
        return self._seconds is None or self.spent + self._took.get(what, seconds) <= self._seconds

    def has_time_to_prepare(self) -> bool:
        """Whether another arm may be prepared."""
        return self._seconds is None or self.spent <= PREPARING * self._seconds

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return perf_counter() - self._began
