"""Compares the cost of the policy with never fusing and with the best fixed choice, for each trace."""

from dataclasses import dataclass

from lora_compose.benchmarks.auto_fuse.replay import ReplayResult, fixed_cost, hindsight, hostile, replayed
from lora_compose.benchmarks.auto_fuse.traces import Trace, alternating, bursty, even, steady, zipf
from lora_compose.server.fusion.policy import FusePolicySettings
from lora_compose.server.fusion.token_prices import Costs, Model

COST_BOUND = 1.1
"""Largest allowed cost, as a multiple of never fusing. It holds on every trace, also on hostile ones."""
GAIN_BOUND = 0.9
"""Smallest allowed share of the gain of fusing from the start. It holds on the steady trace."""
MEASURED = (1.0, 0.7, 1.3)
"""Prices of LoRA work that the policy assumes, as factors of the true prices."""


@dataclass(frozen=True)
class ComparisonRow:
    """One trace, with one assumption about its prices."""

    trace: str
    assumed: float
    """Prices of LoRA work that the policy assumed, as a factor of the true prices."""
    never_seconds: float
    best: Model
    """The best fixed choice in hindsight. None means never fusing."""
    best_seconds: float
    outcome: ReplayResult
    gain_bound: float | None

    @property
    def ratio(self) -> float:
        return self.outcome.cost_seconds / self.never_seconds

    @property
    def share_of_gain(self) -> float | None:
        """Saved time as a share of what the best fixed choice saves. None if that choice is never fusing."""
        possible = self.never_seconds - self.best_seconds
        return (self.never_seconds - self.outcome.cost_seconds) / possible if possible > 0 else None

    @property
    def kept(self) -> bool:
        """Whether this row is within its bounds."""
        gained = self.gain_bound is None or (self.share_of_gain or 0.0) >= self.gain_bound
        return self.ratio <= COST_BOUND and gained


def traces(seed: int, seconds: int, costs: Costs, settings: FusePolicySettings) -> list[Trace]:
    """All traces. The alternating one has the turn length, near the policy's own times, that costs most."""
    own = (settings.half_life_seconds, settings.min_dwell_seconds)
    turns = sorted({max(1, round(time * factor)) for time in own for factor in (0.5, 1, 1.5, 2, 3, 4, 6, 10)})
    worst = max(
        (alternating(seed, seconds, turn) for turn in turns),
        key=lambda trace: replayed(trace, settings, costs, costs).cost_seconds,
    )
    return [
        steady(seed, seconds),
        even(seed, seconds, 2),
        even(seed, seconds, 8),
        worst,
        bursty(seed, seconds),
        zipf(seed, seconds),
        hostile(seed, seconds, settings, costs),
    ]


def rows(
    trace: Trace, costs: Costs, settings: FusePolicySettings, gain_bound: float | None = None
) -> list[ComparisonRow]:
    """One row for each factor in MEASURED."""
    best = hindsight(trace, costs, trace.models)
    never_seconds, best_seconds = fixed_cost(trace, None, costs), fixed_cost(trace, best, costs)
    return [
        ComparisonRow(trace.name, factor, never_seconds, best, best_seconds, outcome, gain_bound)
        for factor in MEASURED
        for outcome in [replayed(trace, settings, costs, mismeasured(costs, factor))]
    ]


def mismeasured(costs: Costs, factor: float) -> Costs:
    """`costs` with the prices of LoRA work and the prior of a switch multiplied by `factor`."""
    assert costs.overhead is not None
    return Costs(costs.overhead * factor, costs.per_member * factor, costs.switch_seconds * factor)
