"""One pass over an arm, and what passes say of a round."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.client import Row


@dataclass(frozen=True)
class Pass:
    """The requests sent to one arm in one go. `seconds` is from the first send to the last answer."""

    phase: str
    arm: str
    round: int
    rows: tuple[Row, ...]
    seconds: float

    @property
    def failures(self) -> int:
        """Requests that were refused, broke off or had the wrong length."""
        return sum(row.failure is not None for row in self.rows)


def output_throughput(passes: Sequence[Pass]) -> float:
    """Output tokens per second over several passes."""
    return sum(row.tokens for one in passes for row in one.rows) / sum(one.seconds for one in passes)


def median_ttft(passes: Sequence[Pass]) -> float:
    """Median seconds to the first token; every row must have been streamed."""
    return median(row.first - row.sent for one in passes for row in one.rows if row.first is not None)


def value_by_round(
    passes: Sequence[Pass], arm: str, value: Callable[[Sequence[Pass]], float]
) -> dict[int, float]:
    """An arm's value in each round. A round in which any of its requests failed is left out, not patched."""
    rounds: dict[int, list[Pass]] = defaultdict(list)
    for one in passes:
        if one.arm == arm:
            rounds[one.round].append(one)
    return {
        number: value(group) for number, group in rounds.items() if not any(one.failures for one in group)
    }
