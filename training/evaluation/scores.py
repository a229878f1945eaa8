"""Shares of right answers with their intervals, and how much a model has forgotten compared with its base."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from lora_compose.training.evaluation.models import Answerer
from lora_compose.training.evaluation.tasks import Kind, Question, Task

MIN_TOKENS = 64
"""An answer may always have this many tokens, so that a wrong one can be read."""
WRONG_KEPT = 20
"""At most this many wrong answers of a task are kept, to be shown."""


@dataclass(frozen=True)
class Wrong:
    """A wrong answer."""

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
    too_long: int = 0
    """Right answers with more tokens than an answer may have. A model cannot give them."""

    @property
    def share(self) -> float:
        """The share of right answers, between 0 and 1."""
        return self.right / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the share.

        The normal interval would leave [0, 1], and would be empty for shares of 0 and 1.
        """
        return wilson(self.right, self.count)


@dataclass(frozen=True)
class Scores:
    """The scores of one model. `domain` and `general` are means over their tasks, None without such tasks."""

    tasks: tuple[TaskScore, ...]

    @property
    def domain(self) -> float | None:
        """The mean score on the tasks of the domain."""
        return self._mean("domain")

    @property
    def general(self) -> float | None:
        """The mean score on the tasks of general ability, which training should not lower."""
        return self._mean("general")

    def _mean(self, kind: Kind) -> float | None:
        shares = [task.share for task in self.tasks if task.kind == kind]
        return fmean(shares) if shares else None

    def named(self) -> dict[str, float]:
        """`domain` and `general` by name, if they are not None."""
        named = {"domain": self.domain, "general": self.general}
        return {name: value for name, value in named.items() if value is not None}


def score(
    answerer: Answerer,
    tasks: Sequence[Task],
    *,
    max_tokens: int | None = None,
    on_progress: Callable[[Task], None] = lambda _: None,
) -> Scores:
    """Ask every question of the tasks. `on_progress` gets each finished task.

    An answer is right if it equals the expected answer exactly, except for space around it. If `max_tokens`
    is None, answers may have MIN_TOKENS tokens, or as many as the longest right answer of the task.
    """
    found = []
    for task in tasks:
        lengths = [answerer.length(question.answer) for question in task.questions]
        limit = max_tokens or max(MIN_TOKENS, *lengths)
        answers = answerer.answer([question.prompt for question in task.questions], limit)
        pairs = list(zip(task.questions, answers, strict=True))
        wrong = [Wrong(q, answer) for q, answer in pairs if answer.strip() != q.answer.strip()]
        right = len(pairs) - len(wrong)
        too_long = sum(length > limit for length in lengths)
        found.append(TaskScore(task.name, task.kind, right, len(pairs), tuple(wrong[:WRONG_KEPT]), too_long))
        on_progress(task)
    return Scores(tuple(found))


def forgetting(base: Scores, scores: Scores) -> float | None:
    """The general score of the base minus the other general score. Above 0, something was forgotten."""
    if base.general is None or scores.general is None:
        return None
    return round(base.general - scores.general, 6)  # 0.995 - 0.975 is 0.02


def normal_interval(values: Sequence[float], z: float = 1.96) -> tuple[float, float]:
    """The normal interval of a mean, from the spread of its values.

    With one value, both ends are the mean.
    """
    half = z * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return fmean(values) - half, fmean(values) + half


def wilson(right: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of a share. Source: E. B. Wilson, 1927, doi:10.2307/2276774."""
    share, spread = right / count, z * z / count
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)
