"""Measures the cost of serving in the worker: tokens by composition, and the time that LoRA adds.

The time of the kernels is measured inside each step, so the cost of LoRA is known even if every step uses
LoRA. The meter is off until it is read for the first time.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

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
    """The sum over rows of the number of members: `member_rows / lora_rows` is the mean size of a stack."""

    @classmethod
    def of(cls, names: Sequence[str | None], wanted: Sequence[Members], token_counts: Sequence[int]) -> Self:
        """The load of a batch in which request i, for composition `names[i]`, has `token_counts[i]` rows."""
        tokens: Counter[str | None] = Counter()
        for name, count in zip(names, token_counts, strict=True):
            tokens[name] += count
        rows = [(len(members), count) for members, count in zip(wanted, token_counts, strict=True) if members]
        return cls(tokens, sum(count for _, count in rows), sum(size * count for size, count in rows))

    @property
    def rows(self) -> int:
        """All rows, with and without LoRA."""
        return sum(self.tokens.values())


@dataclass
class StepBucket:
    """Sums of seconds and rows over the steps whose mean stack size, rounded, is the same."""

    lora_seconds: float = 0.0
    lora_rows: float = 0.0
    other_seconds: float = 0.0
    rows: float = 0.0


@dataclass
class Meter:
    """The LoRA manager calls `step` once a step; the kernels add to `lora_seconds`."""

    is_on: bool = False
    lora_seconds: float = 0.0
    """Seconds of LoRA work in the current step."""
    _load: CountedLoad | None = None
    _started: float = 0.0
    _usual_seconds: float | None = None
    _busy: float = 0.0
    _tokens: "Counter[str | None]" = field(default_factory=Counter)
    _buckets: dict[int, StepBucket] = field(default_factory=dict)

    def step(self, load: CountedLoad) -> None:
        """The next step starts, so the previous one has ended."""
        now = time.perf_counter()
        if self._load is not None:
            self._account(self._load, now - self._started)
        self._load, self._started, self.lora_seconds = load, now, 0.0

    def _account(self, load: CountedLoad, seconds: float) -> None:
        self._tokens.update(load.tokens)
        if self._usual_seconds is not None and seconds > IDLE_FACTOR * self._usual_seconds:
            self._busy += self._usual_seconds
            return
        self._busy += seconds
        usual = seconds if self._usual_seconds is None else self._usual_seconds
        self._usual_seconds = usual + SMOOTHING * (seconds - usual)
        if load.lora_rows:
            bucket = self._buckets.setdefault(round(load.member_rows / load.lora_rows), StepBucket())
            bucket.lora_seconds += self.lora_seconds
            bucket.lora_rows += load.lora_rows
            bucket.other_seconds += seconds - self.lora_seconds
            bucket.rows += load.rows

    def read(self) -> dict[str, Any]:
        """Tokens and busy seconds since the last call, and the cost of LoRA by size of the stack.

        An entry of `overheads` is `[members, extra time of such a row relative to a row without LoRA, rows
        measured]`.
        """
        self.is_on = True
        reading = {
            "tokens": [[name, count] for name, count in self._tokens.items()],
            "busy_seconds": self._busy,
            "overheads": [[members, *_overhead(b)] for members, b in sorted(self._buckets.items())],
        }
        self._tokens, self._busy = Counter(), 0.0
        for bucket in self._buckets.values():  # older steps count less
            for name in ("lora_seconds", "lora_rows", "other_seconds", "rows"):
                setattr(bucket, name, getattr(bucket, name) * (1 - SMOOTHING))
        return reading


def _overhead(bucket: StepBucket) -> tuple[float, float]:
    per_row = bucket.other_seconds / bucket.rows
    return bucket.lora_seconds / bucket.lora_rows / per_row, bucket.lora_rows
