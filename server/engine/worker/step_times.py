"""The cost of LoRA on a device, from the times of whole steps with and without LoRA.

A device works on kernels after their launch, and a CUDA graph replays them all in one launch. So the time of
LoRA kernels cannot be measured inside a step. The engine waits for the tokens of a step before the next one
ends, so the time from step to step is the device's time while the engine is busy.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from typing_extensions import override

from lora_compose.server.engine.cpu.cost_meter import SMOOTHING, CountedLoad, StepMeter

Kind = tuple[int, int]
"""Steps of one kind have about as many rows and requests: each number's bits."""


@dataclass
class Times:
    """Sums over steps. `lora_rows` is 0 for steps without LoRA."""

    steps: float = 0.0
    seconds: float = 0.0
    rows: float = 0.0
    lora_rows: float = 0.0

    def add(self, load: CountedLoad, seconds: float) -> None:
        """Add one step."""
        self.steps += 1
        self.seconds += seconds
        self.rows += load.rows
        self.lora_rows += load.lora_rows

    def fade(self) -> None:
        """Let the present sums count less than later steps."""
        for name in ("steps", "seconds", "rows", "lora_rows"):
            setattr(self, name, getattr(self, name) * (1 - SMOOTHING))

    def overhead(self, without: "Times") -> float:
        """The extra time of a row with LoRA, relative to a row of the steps `without`."""
        ratio = (self.seconds / self.steps) / (without.seconds / without.steps)
        return (ratio - 1) * self.rows / self.lora_rows


@dataclass
class StepTimes(StepMeter):
    """Compares steps with LoRA with steps of the same kind without.

    It reports no cost until it has seen both. Requests for the base make steps without, and requests for a
    fused composition do."""

    _without: dict[Kind, Times] = field(default_factory=dict)
    _with: dict[tuple[Kind, int], Times] = field(default_factory=dict)

    @override
    def _measure(self, load: CountedLoad, seconds: float) -> None:
        kind = load.rows.bit_length(), load.requests.bit_length()
        if load.lora_rows:
            self._with.setdefault((kind, load.stack_size), Times()).add(load, seconds)
        else:
            self._without.setdefault(kind, Times()).add(load, seconds)

    @override
    def _overheads(self) -> list[list[float]]:
        measured: dict[int, list[tuple[float, float]]] = {}
        for (kind, size), times in self._with.items():
            if kind in self._without:
                measured.setdefault(size, []).append((times.overhead(self._without[kind]), times.lora_rows))
        for times in (*self._with.values(), *self._without.values()):
            times.fade()
        return [[size, *_mean(costs)] for size, costs in sorted(measured.items())]


def _mean(costs: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """The mean of the costs, weighted by rows, and the rows."""
    costs = list(costs)
    rows = sum(count for _, count in costs)
    return sum(cost * count for cost, count in costs) / rows, rows
