"""Measures the cost of serving in the worker: tokens by composition, and the time that LoRA adds.

The time of the kernels is measured inside each step, so the cost of LoRA is known even if every step uses
LoRA. The meter is off until it is read for the first time.
"""

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from typing_extensions import override

from lora_compose.server.engine.cpu.batch import Members

# If a step takes this many times the usual time, the engine was idle before it.
IDLE_FACTOR = 4.0
SMOOTHING = 0.05


@dataclass(frozen=True, eq=False)
class CountedLoad:
    """The rows of a batch by composition (None: the base), and how many members they need."""

    tokens: Mapping[str | None, int]
    lora_rows: int
    member_rows: int
    """The sum over rows of the number of members."""
    requests: int

    @classmethod
    def of(
        cls,
        names: Sequence[str | None],
        wanted: Sequence[Members],
        token_counts: Sequence[int],
        requests: int,
    ) -> Self:
        """The load of a batch of `requests` requests. Composition `names[i]` has `token_counts[i]` rows."""
        tokens: Counter[str | None] = Counter()
        for name, count in zip(names, token_counts, strict=True):
            tokens[name] += count
        rows = [(len(members), count) for members, count in zip(wanted, token_counts, strict=True) if members]
        lora_rows, member_rows = (sum(count for _, count in rows), sum(size * count for size, count in rows))
        return cls(tokens, lora_rows, member_rows, requests)

    @property
    def rows(self) -> int:
        """All rows, with and without LoRA."""
        return sum(self.tokens.values())

    @property
    def stack_size(self) -> int:
        """The mean number of members of a row with LoRA, rounded."""
        return round(self.member_rows / self.lora_rows)


@dataclass
class StepBucket:
    """Sums of seconds and rows over the steps whose mean stack size, rounded, is the same."""

    lora_seconds: float = 0.0
    lora_rows: float = 0.0
    other_seconds: float = 0.0
    rows: float = 0.0


@dataclass
class StepMeter(ABC):
    """Counts tokens and busy seconds. The manager calls `step` once a step; a subclass measures costs."""

    is_on: bool = False
    _load: CountedLoad | None = None
    _started: float = 0.0
    _usual_seconds: float | None = None
    _busy: float = 0.0
    _tokens: "Counter[str | None]" = field(default_factory=Counter)

    def step(self, load: CountedLoad) -> None:
        """The next step starts, so the previous one has ended."""
        now = time.perf_counter()
        if self._load is not None:
            self._account(self._load, now - self._started)
        self._load, self._started = load, now

    def _account(self, load: CountedLoad, seconds: float) -> None:
        self._tokens.update(load.tokens)
        if self._usual_seconds is not None and seconds > IDLE_FACTOR * self._usual_seconds:
            self._busy += self._usual_seconds
            return
        self._busy += seconds
        usual = seconds if self._usual_seconds is None else self._usual_seconds
        self._usual_seconds = usual + SMOOTHING * (seconds - usual)
        self._measure(load, seconds)

    def read(self) -> dict[str, Any]:
        """Tokens and busy seconds since the last call, and the cost of LoRA by size of the stack.

        An entry of `overheads` is `[members, extra time of such a row relative to a row without LoRA, rows
        measured]`.
        """
        self.is_on = True
        reading = {
            "tokens": [[name, count] for name, count in self._tokens.items()],
            "busy_seconds": self._busy,
            "overheads": self._overheads(),
        }
        self._tokens, self._busy = Counter(), 0.0
        return reading

    @abstractmethod
    def _measure(self, load: CountedLoad, seconds: float) -> None:
        """Use a step without a pause before it."""

    @abstractmethod
    def _overheads(self) -> list[list[float]]:
        """The costs. After the call, older steps count less."""


@dataclass
class Meter(StepMeter):
    """For kernels that measure their own time: they add it to `lora_seconds`."""

    lora_seconds: float = 0.0
    """Seconds of LoRA work in the current step."""
    _buckets: dict[int, StepBucket] = field(default_factory=dict)

    @override
    def step(self, load: CountedLoad) -> None:
        super().step(load)
        self.lora_seconds = 0.0

    @override
    def _measure(self, load: CountedLoad, seconds: float) -> None:
        if load.lora_rows:
            bucket = self._buckets.setdefault(load.stack_size, StepBucket())
            bucket.lora_seconds += self.lora_seconds
            bucket.lora_rows += load.lora_rows
            bucket.other_seconds += seconds - self.lora_seconds
            bucket.rows += load.rows

    @override
    def _overheads(self) -> list[list[float]]:
        overheads = [[members, *_overhead(bucket)] for members, bucket in sorted(self._buckets.items())]
        for bucket in self._buckets.values():
            for name in ("lora_seconds", "lora_rows", "other_seconds", "rows"):
                setattr(bucket, name, getattr(bucket, name) * (1 - SMOOTHING))
        return overheads


def _overhead(bucket: StepBucket) -> tuple[float, float]:
    per_row = bucket.other_seconds / bucket.rows
    return bucket.lora_seconds / bucket.lora_rows / per_row, bucket.lora_rows
