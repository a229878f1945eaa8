"""Search weights for a composition with the best score on a validation set: first a coarse grid, then smaller
steps.

The search only needs a function from weights to a score. It is deterministic and never scores the same
weights twice. Among equal scores, the weights nearest to 1 win, so that noise does not change weights. Two
weights searched on some dozen composed examples were seen to improve the score. Data of the single members
are misleading (arXiv 2511.21437).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Final

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
    trials: dict[Weights, Trial] = field(default_factory=dict)

    def best_of(self, candidates: Sequence[Weights]) -> Trial:
        """The best of `candidates`. Weights that were not scored yet are scored."""
        return max((self._trial(weights) for weights in candidates), key=lambda trial: trial.rank)

    def _trial(self, weights: Weights) -> Trial:
        known = self.trials.get(weights)
        if known is None:
            known = self.trials[weights] = Trial(weights, self.score(weights))
            self.on_progress(known)
        return known


def search(members: int, score: Score, on_progress: Callable[[Trial], None] = lambda _: None) -> Trial:
    """The best weights found for `members` adapters."""
    run = Search(score, on_progress)
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
    """Weights with one weight a step higher or lower.

    All stay above 0, because 0 would leave a member out.
    """
    moved = [
        (*weights[:i], weights[i] + change, *weights[i + 1 :])
        for i in range(len(weights))
        for change in (-step, step)
    ]
    return [candidate for candidate in moved if min(candidate) > 0]
