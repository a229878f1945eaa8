"""Search weights for a composition with the best score on a validation set: first a coarse grid, then smaller
steps, then the middle of the best weights.

The search only needs a function from weights to a score. It is deterministic unless its time ends, and never
scores the same weights twice. Among equal scores the weights nearest to 1 win, so that noise does not change
weights; at the end the middle of all weights with the best score wins, because it is the farthest from where
the score falls. Two weights searched on some dozen composed examples were seen to improve the score. Data of
the single members are misleading (arXiv 2511.21437).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Final

from lora_compose.training.tuning.time_budget import TimeBudget

GRID: Final = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
FINEST_STEP: Final = 0.0625
MOST_OF_GRID: Final = 216
"""The whole grid is scored up to this many points. A larger grid is searched one member at a time."""

Weights = tuple[float, ...]
Score = Callable[[Weights], float]
"""Higher is better."""


@dataclass(frozen=True)
class Trial:
    """Weights and their score."""

    weights: Weights
    score: float

    @property
    def rank(self) -> tuple[float, float, Weights]:
        """Sort key, greater is better: the score, then how near the weights are to 1."""
        return self.score, -sum(abs(weight - 1.0) for weight in self.weights), self.weights


@dataclass
class Search:
    """All trials of one search, in order."""

    score: Score
    on_progress: Callable[[Trial], None] = lambda _: None
    """Called after each new trial."""
    budget: TimeBudget = field(default_factory=lambda: TimeBudget(math.inf))
    """When it is over, no new weights are scored."""
    trials: dict[Weights, Trial] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Whether the time has ended."""
        return self.budget.is_over

    def best_of(self, candidates: Sequence[Weights]) -> Trial:
        """The best of `candidates`. Weights that were not scored yet are scored while there is time."""
        found = [trial for weights in candidates if (trial := self._trial(weights)) is not None]
        return max(found, key=lambda trial: trial.rank)

    def _trial(self, weights: Weights) -> Trial | None:
        known = self.trials.get(weights)
        if known is None and not (self.is_over and self.trials):
            score = self.budget.measured(lambda: self.score(weights))
            known = self.trials[weights] = Trial(weights, score)
            self.on_progress(known)
        return known


def search(
    members: int,
    score: Score,
    on_progress: Callable[[Trial], None] = lambda _: None,
    seconds: float = math.inf,
    perfect: float = math.inf,
) -> Trial:
    """The best weights found for `members` adapters, in `seconds`, or after the weights of 1 alone.

    If weights of 1 have a score of `perfect` or more, nothing else is tried."""
    run = Search(score, on_progress, TimeBudget(seconds))
    best = run.best_of([(1.0,) * members])
    if best.score >= perfect:
        return best
    best = _coarse(run, best)
    step = (GRID[1] - GRID[0]) / 2
    while step >= FINEST_STEP and not run.is_over:
        better = run.best_of([best.weights, *_around(best.weights, step)])
        if better == best:
            step /= 2
        best = better
    return _middle(run, best)


def _coarse(run: Search, best: Trial) -> Trial:
    """The best of the grid. Weights near 1 are tried first, for a search whose time ends."""
    members = len(best.weights)
    if len(GRID) ** members <= MOST_OF_GRID:
        points = sorted(product(GRID, repeat=members), key=lambda point: Trial(point, 0.0).rank, reverse=True)
        return run.best_of([best.weights, *points])
    while True:
        before = best
        for i in range(members):
            line = [(*best.weights[:i], weight, *best.weights[i + 1 :]) for weight in GRID]
            best = run.best_of([best.weights, *line])
        if best == before:
            return best


def _middle(run: Search, best: Trial) -> Trial:
    """The middle of the weights that score as `best` and are connected with it, if it scores so too.

    Weights are connected if they differ by at most one step of the grid in each member. If the middle scores
    less, the trial nearest to it is taken."""
    plateau, left = [best.weights], {t.weights for t in run.trials.values() if t.score == best.score}
    for weights in plateau:
        near = {other for other in left if _distance(weights, other) <= GRID[1] - GRID[0]}
        left -= near
        plateau += sorted(near - {*plateau})
    if len({*plateau}) == len(run.trials):
        return best  # the weights make no difference
    center = tuple((min(values) + max(values)) / 2 for values in zip(*plateau, strict=True))
    rounded = tuple(max(FINEST_STEP, round(value / FINEST_STEP) * FINEST_STEP) for value in center)
    middle = run.best_of([best.weights, rounded])
    if rounded in run.trials and run.trials[rounded].score >= best.score:
        return run.trials[rounded]
    nearest = min({*plateau}, key=lambda weights: (_distance(weights, center), weights))
    return max(middle, run.trials[nearest], key=lambda trial: trial.score)


def _distance(left: Weights, right: Weights) -> float:
    return max(abs(a - b) for a, b in zip(left, right, strict=True))


def _around(weights: Weights, step: float) -> list[Weights]:
    """Weights with one weight a step higher or lower.

    All stay above 0, because 0 would leave a member out.
    """
    moved = [
        (*weights[:i], weights[i] + change, *weights[i + 1 :])
        for i in range(len(weights))
        for change in (-step, step)
    ]
    return [candidate for candidate in moved if min(candidate) > 0]
