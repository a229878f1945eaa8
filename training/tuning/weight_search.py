"""Find weights for a composition by what it scores on a validation set: a coarse grid, then smaller steps.

Pure search: it knows a function from weights to a score, and no model. Deterministic; the same weights are
never scored twice. Among equal scores the weights nearest to 1 win: noise moves nothing that need not move.
Two scalars on some dozen composed examples are what was seen to pay; members' own data mislead (2511.21437).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Final

GRID: Final = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
FINEST_STEP: Final = 0.0625
MOST_OF_GRID: Final = 216
"""Points up to which the whole grid is scored; beyond, one member at a time, as often as it helps."""

Weights = tuple[float, ...]
Score = Callable[[Weights], float]
"""Higher is better."""


@dataclass(frozen=True)
class Trial:
    """Weights that were scored."""

    weights: Weights
    score: float

    @property
    def rank(self) -> tuple[float, float, Weights]:
        """Greater is better: the score, then how near the weights are to 1."""
        return self.score, -sum(abs(weight - 1.0) for weight in self.weights), self.weights


@dataclass
class Search:
    """Every trial of one search, in order."""

    score: Score
    told: Callable[[Trial], None] = lambda _: None
    """Called after each new trial."""
    trials: dict[Weights, Trial] = field(default_factory=dict)

    def best_of(self, candidates: Sequence[Weights]) -> Trial:
        """The best of `candidates`, scoring those that are new."""
        return max((self._trial(weights) for weights in candidates), key=lambda trial: trial.rank)

    def _trial(self, weights: Weights) -> Trial:
        known = self.trials.get(weights)
        if known is None:
            known = self.trials[weights] = Trial(weights, self.score(weights))
            self.told(known)
        return known


def search(members: int, score: Score, told: Callable[[Trial], None] = lambda _: None) -> Trial:
    """The best weights found for `members` adapters; what is asked of `score` depends on its answers."""
    run = Search(score, told)
    best = run.best_of([(1.0,) * members])
    best = _coarse(run, best)
    step = (GRID[1] - GRID[0]) / 2
    while step >= FINEST_STEP:
        better = run.best_of([best.weights, *_around(best.weights, step)])
        if better == best:
            step /= 2
        best = better
    return best


def _coarse(run: Search, best: Trial) -> Trial:
    members = len(best.weights)
    if len(GRID) ** members <= MOST_OF_GRID:
        return run.best_of(list(product(GRID, repeat=members)))
    while True:
        before = best
        for i in range(members):
            best = run.best_of([(*best.weights[:i], weight, *best.weights[i + 1 :]) for weight in GRID])
        if best == before:
            return best


def _around(weights: Weights, step: float) -> list[Weights]:
    """One weight a step up or down, never to zero or beyond: that would leave a member out."""
    moved = [
        (*weights[:i], weights[i] + change, *weights[i + 1 :])
        for i in range(len(weights))
        for change in (-step, step)
    ]
    return [each for each in moved if min(each) > 0]
