"""Shares of right answers, with how sure they are, and what a model has lost against its base."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from lora_compose.training.evaluation.models import Answerer
from lora_compose.training.evaluation.tasks import Kind, Question, Task

WRONG_KEPT = 20
"""Wrong answers kept of a task, to look at."""


@dataclass(frozen=True)
class Wrong:
    """An answer that was not the right one."""

    question: Question
    answer: str


@dataclass(frozen=True)
class TaskScore:
    """Exact matches of one task."""

    task: str
    kind: Kind
    right: int
    count: int
    wrong: tuple[Wrong, ...] = ()

    @property
    def share(self) -> float:
        """Of 1."""
        return self.right / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, by Wilson's score: the binomial's normal interval leaves [0, 1] and is empty at its ends."""
        return wilson(self.right, self.count)


@dataclass(frozen=True)
class Scores:
    """Of one model. `domain` and `general` are means over their tasks; None where there are none."""

    tasks: tuple[TaskScore, ...]

    @property
    def domain(self) -> float | None:
        """Of the tasks it was adapted for."""
        return self._mean("domain")

    @property
    def general(self) -> float | None:
        """Of what it is not to lose."""
        return self._mean("general")

    def _mean(self, kind: Kind) -> float | None:
        shares = [task.share for task in self.tasks if task.kind == kind]
        return fmean(shares) if shares else None

    def named(self) -> dict[str, float]:
        """`domain` and `general`, those there are."""
        named = {"domain": self.domain, "general": self.general}
        return {name: value for name, value in named.items() if value is not None}


def score(
    answerer: Answerer,
    tasks: Sequence[Task],
    *,
    max_tokens: int = 64,
    told: Callable[[Task], None] = lambda _: None,
) -> Scores:
    """Ask every task. An answer is right if it is the expected one to the letter, space around it aside."""
    found = []
    for task in tasks:
        answers = answerer.answer([question.prompt for question in task.questions], max_tokens)
        pairs = list(zip(task.questions, answers, strict=True))
        wrong = [Wrong(q, given) for q, given in pairs if given.strip() != q.answer.strip()]
        right = len(pairs) - len(wrong)
        found.append(TaskScore(task.name, task.kind, right, len(pairs), tuple(wrong[:WRONG_KEPT])))
        told(task)
    return Scores(tuple(found))


def forgetting(base: Scores, scores: Scores) -> float | None:
    """The general score the base has and the other has not: above 0 something was lost."""
    if base.general is None or scores.general is None:
        return None
    return round(base.general - scores.general, 6)  # 0.995 - 0.975 is 0.02


def normal_interval(values: Sequence[float], z: float = 1.96) -> tuple[float, float]:
    """Of a mean, from the spread of its values; just the mean where there is one value."""
    half = z * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return fmean(values) - half, fmean(values) + half


def wilson(right: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of a share. Source: E. B. Wilson, 1927, doi:10.2307/2276774."""
    share, spread = right / count, z * z / count
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)
