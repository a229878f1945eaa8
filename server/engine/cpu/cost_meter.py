"""What serving costs here, measured where the work is done: tokens by composition, and what LoRA adds to
them.

The kernels' own time is measured inside each step, so the cost of LoRA is known even where no step is without
it. Off until somebody reads it: reading is what starts it.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from lora_compose.server.engine.cpu.batch import Members

# A step that takes this many times the usual is one the engine slept before.
IDLE_FACTOR = 4.0
SMOOTHING = 0.05


@dataclass(frozen=True, eq=False)
class CountedLoad:
    """A batch's rows: how many, by composition (None: the base), and the members each needs."""

    tokens: Mapping[str | None, int]
    lora_rows: int
    member_rows: int
    """Σ over rows of the members it needs: `member_rows / lora_rows` is the mean size of a stack."""

    @classmethod
    def of(cls, names: Sequence[str | None], wanted: Sequence[Members], token_counts: Sequence[int]) -> Self:
        """Of a batch in which request i, for the composition `names[i]`, has `token_counts[i]` rows."""
        tokens: Counter[str | None] = Counter()
        for name, count in zip(names, token_counts, strict=True):
            tokens[name] += count
        rows = [(len(members), count) for members, count in zip(wanted, token_counts, strict=True) if members]
        return cls(tokens, sum(count for _, count in rows), sum(size * count for size, count in rows))

    @property
    def rows(self) -> int:
        """All of them."""
        return sum(self.tokens.values())


@dataclass
class StepBucket:
    """Steps whose stacks have one size on average, rounded. Seconds and rows, summed."""

    lora_seconds: float = 0.0
    lora_rows: float = 0.0
    other_seconds: float = 0.0
    rows: float = 0.0


@dataclass
class Meter:
    """Fed by the LoRA manager once a step, and by the kernels."""

    is_on: bool = False
    lora_seconds: float = 0.0
    """Of the current step."""
    _load: CountedLoad | None = None
    _began: float = 0.0
    _usual: float | None = None
    _busy: float = 0.0
    _tokens: "Counter[str | None]" = field(default_factory=Counter)
    _buckets: dict[int, StepBucket] = field(default_factory=dict)

    def step(self, load: CountedLoad) -> None:
        """The next step begins, and with that the last one is over."""
        now = time.perf_counter()
        if self._load is not None:
            self._account(self._load, now - self._began)
        self._load, self._began, self.lora_seconds = load, now, 0.0

    def _account(self, load: CountedLoad, seconds: float) -> None:
        self._tokens.update(load.tokens)
        if self._usual is not None and seconds > IDLE_FACTOR * self._usual:
            self._busy += self._usual
            return
        self._busy += seconds
        usual = seconds if self._usual is None else self._usual
        self._usual = usual + SMOOTHING * (seconds - usual)
        if load.lora_rows:
            bucket = self._buckets.setdefault(round(load.member_rows / load.lora_rows), StepBucket())
            bucket.lora_seconds += self.lora_seconds
            bucket.lora_rows += load.lora_rows
            bucket.other_seconds += seconds - self.lora_seconds
            bucket.rows += load.rows

    def read(self) -> dict[str, Any]:
        """Tokens and busy seconds since the last time, and what LoRA costs, by size of the stack.

        `overheads` has `[members, extra time of such a row relative to one without, rows measured]`.
        """
        self.is_on = True
        reading = {
            "tokens": [[name, count] for name, count in self._tokens.items()],
            "busy_seconds": self._busy,
            "overheads": [[members, *_overhead(b)] for members, b in sorted(self._buckets.items())],
        }
        self._tokens, self._busy = Counter(), 0.0
        for bucket in self._buckets.values():  # what was long ago counts less
            for name in ("lora_seconds", "lora_rows", "other_seconds", "rows"):
                setattr(bucket, name, getattr(bucket, name) * (1 - SMOOTHING))
        return reading


def _overhead(bucket: StepBucket) -> tuple[float, float]:
    per_row = bucket.other_seconds / bucket.rows
    return bucket.lora_seconds / bucket.lora_rows / per_row, bucket.lora_rows
