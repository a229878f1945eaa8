"""Learn finer coefficients for a stack, and keep them only if they pay on held-out rows.

Three stacks are scored on the rows that no coefficient saw: the given weights, one learned weight for each
adapter, and the finer coefficients. The best one wins, and of equal ones the one with fewer coefficients.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

from lora_compose.adapters.peft.checkpoint import Lora
from lora_compose.training.evaluation.intervals import Interval
from lora_compose.training.evaluation.models import Loaded, LocalModel
from lora_compose.training.evaluation.scores import TaskScore, score
from lora_compose.training.evaluation.tasks import Task
from lora_compose.training.tuning.coefficients import Granularity, Plan, Stacked, learn


@dataclass(frozen=True)
class Candidate:
    """A stack with its coefficients, and the score of the held-out rows."""

    name: str
    stacked: Stacked
    held_out: TaskScore

    def gain_over(self, other: "Candidate") -> tuple[float, Interval]:
        """The change of the held-out score, with its paired 95 % interval."""
        return self.held_out.change_since(other.held_out)


@dataclass(frozen=True)
class Comparison:
    """The candidates, from the fewest coefficients to the most."""

    candidates: tuple[Candidate, ...]
    tuned_rows: int
    held_out_rows: int

    @property
    def winner(self) -> Candidate:
        """The candidate with the best held-out score, the first of equal ones."""
        return max(self.candidates, key=lambda candidate: candidate.held_out.score)

    def to_dict(self) -> dict[str, Any]:
        """The JSON values for --json and for the lineage."""
        first = self.candidates[0]
        rows = [
            {
                "name": candidate.name,
                "held_out": candidate.held_out.score,
                "interval": candidate.held_out.interval,
                "gain": candidate.gain_over(first)[0],
                "gain_interval": candidate.gain_over(first)[1],
                "coefficients": sum(len(value) for value in candidate.stacked.values.values()),
            }
            for candidate in self.candidates
        ]
        return {
            "winner": self.winner.name,
            "tuned_rows": self.tuned_rows,
            "held_out_rows": self.held_out_rows,
            "candidates": rows,
        }


def compare(
    base: Loaded,
    members: Sequence[Lora],
    weights: Sequence[float],
    parts: tuple[Task, Task],
    plan: Plan,
    on_progress: Callable[[str, int, float], None] = lambda _name, _step, _loss: None,
) -> Comparison:
    """Learn on the first of `parts`, and score all candidates on the second, in about `plan.seconds`.

    `on_progress` gets the candidate's name, the step and the loss."""
    learned: list[tuple[str, Granularity]] = [("one weight for each adapter", "adapter")]
    if plan.granularity != "adapter":
        learned.append((f"one weight for each {plan.granularity} of an adapter", plan.granularity))
    tuned, held_out = parts
    started = monotonic()
    given = Stacked.of(members, weights, "adapter")
    given.check_fits(base.model)
    candidates = [_scored("given weights", base, given, held_out)]
    scoring, ends_at = monotonic() - started, started + plan.seconds
    for left, (name, kind) in zip(range(len(learned), 0, -1), learned, strict=True):
        stacked = Stacked.of(members, weights, kind)
        own = replace(plan, seconds=(ends_at - monotonic()) / left - scoring)

        def report(step: int, loss: float, name: str = name) -> None:
            on_progress(name, step, loss)

        learn(base, stacked, tuned, own, report)
        candidates.append(_scored(name, base, stacked, held_out))
    return Comparison(tuple(candidates), len(tuned.questions), len(held_out.questions))


def _scored(name: str, base: Loaded, stacked: Stacked, task: Task) -> Candidate:
    with stacked.on(base.model):
        return Candidate(name, stacked, score(LocalModel(base.model, base.chat), [task]).tasks[0])
