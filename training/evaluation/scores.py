"""The scores of models on tasks, with their intervals, and the change from one model to another."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import fmean
from typing import Any

from lora_compose.training.evaluation.held_out_text import HeldOutText
from lora_compose.training.evaluation.intervals import (
    Interval,
    bootstrap,
    mean_interval,
    newcombe,
    wilson,
)
from lora_compose.training.evaluation.judges.question import Question
from lora_compose.training.evaluation.models import Answerer
from lora_compose.training.evaluation.tasks import KINDS, Kind, Task

MIN_TOKENS = 64
"""An answer may always have this many tokens, so that a wrong one can be read."""
WRONG_KEPT = 20
"""At most this many wrong answers of a task are kept, to be shown."""
PERPLEXITY = "perplexity"
SEVERAL = "by row"
"""In place of the judge's name, if the rows name several."""


@dataclass(frozen=True)
class Wrong:
    """An answer with a score below 1."""

    question: Question
    answer: str


@dataclass(frozen=True)
class TaskScore:
    """The scores of the answers to one task.

    The task's score is the mean of `values`, weighted by `weights`. The values of a loss are nats per token,
    and the weights are tokens. A perplexity is the exponential of the mean loss.
    """

    task: str
    kind: Kind
    judge: str
    values: tuple[float, ...]
    weights: tuple[int, ...]
    lower_is_better: bool = False
    wrong: tuple[Wrong, ...] = ()
    too_long: int = 0
    """Right answers with more tokens than an answer may have. A model cannot give them."""
    parts: Mapping[str, "TaskScore"] = field(default_factory=dict)
    """The judge's further figures by name, and `group:NAME` of the questions with the same `group` column."""

    @property
    def score(self) -> float:
        """The mean score: between 0 and 1, or a loss or perplexity."""
        return self._mean(slice(None))

    @property
    def count(self) -> int:
        """The number of questions."""
        return len(self.values)

    @property
    def right(self) -> int:
        """The number of answers with the score 1."""
        return 0 if self.lower_is_better else self.values.count(1.0)

    @property
    def is_share(self) -> bool:
        """Whether each answer is right or wrong, so that the score is a share of right answers."""
        return not self.lower_is_better and {*self.values} <= {0.0, 1.0}

    @property
    def interval(self) -> Interval:
        """The 95 % interval of the score: Wilson's for a share, a bootstrap over questions otherwise."""
        return wilson(self.right, self.count) if self.is_share else bootstrap(self._mean, self.count)

    def change_since(self, before: "TaskScore") -> tuple[float, Interval]:
        """This score minus the score before, on the same questions, with its paired 95 % interval."""
        change = self.score - before.score
        if self.is_share and before.is_share:
            return change, newcombe([v == 1 for v in before.values], [v == 1 for v in self.values])
        return change, bootstrap(lambda rows: self._mean(rows) - before._mean(rows), self.count)

    def _mean(self, rows: Any) -> float:
        """The score of some questions: of their positions in an array, or of a slice."""
        values, weights = self._arrays
        mean = float((values[rows] * weights[rows]).sum() / weights[rows].sum())
        return math.exp(mean) if self.judge == PERPLEXITY else mean

    @cached_property
    def _arrays(self) -> tuple[Any, Any]:
        import numpy as np

        return np.array(self.values), np.array(self.weights)


@dataclass(frozen=True)
class Scores:
    """The scores of one model. `domain` and `general` are means over their tasks, None without such tasks."""

    tasks: tuple[TaskScore, ...]
    texts: tuple[TaskScore, ...] = ()
    """The perplexities of held-out texts."""

    @property
    def domain(self) -> float | None:
        """The mean score on the tasks of the domain."""
        return self.named().get("domain")

    @property
    def general(self) -> float | None:
        """The mean score on the tasks of general ability, which training should not lower."""
        return self.named().get("general")

    def named(self) -> dict[str, float]:
        """`domain` and `general` by name, if there are such tasks, and `perplexity:NAME` of each text."""
        found: dict[str, float] = {
            kind: fmean(task.score for task in tasks) for kind, tasks in self._by_kind().items()
        }
        return {**found, **{f"{PERPLEXITY}:{text.task}": text.score for text in self.texts}}

    def intervals(self) -> dict[str, Interval]:
        """The 95 % intervals of `named`."""
        found: dict[str, Interval] = {
            kind: mean_interval([task.score for task in tasks], [task.interval for task in tasks])
            for kind, tasks in self._by_kind().items()
        }
        return {**found, **{f"{PERPLEXITY}:{text.task}": text.interval for text in self.texts}}

    def changes(self, before: "Scores") -> dict[str, tuple[float, Interval]]:
        """`domain` and `general` minus those of `before`, each with its paired 95 % interval."""
        return {kind: self._change(before, kind) for kind in self._by_kind()}

    def _change(self, before: "Scores", kind: Kind) -> tuple[float, Interval]:
        pairs = zip(self._of(kind), before._of(kind), strict=True)
        changes = [after.change_since(first) for after, first in pairs]
        means = [change for change, _ in changes]
        return fmean(means), mean_interval(means, [interval for _, interval in changes])

    def lower_is_better(self, kind: Kind) -> bool:
        """Whether the tasks of a kind are scored by a loss."""
        return any(task.lower_is_better for task in self._of(kind))

    def _of(self, kind: Kind) -> list[TaskScore]:
        return [task for task in self.tasks if task.kind == kind]

    def _by_kind(self) -> dict[Kind, list[TaskScore]]:
        return {kind: self._of(kind) for kind in KINDS if self._of(kind)}


def score(
    answerer: Answerer,
    tasks: Sequence[Task],
    *,
    texts: Sequence[HeldOutText] = (),
    max_tokens: int | None = None,
    on_progress: Callable[[Task], None] = lambda _: None,
) -> Scores:
    """Ask every question of the tasks, judge the answers, and measure the texts' perplexity.

    `on_progress` gets each finished task. If `max_tokens` is None, answers may have MIN_TOKENS tokens, or as
    many as the longest right answer of the task. Raises the errors of the task's judges.
    """
    found = []
    for task in tasks:
        is_loss = task.scored_by.needs_likelihood
        found.append(_losses(answerer, task) if is_loss else _answers(answerer, task, max_tokens))
        on_progress(task)
    return Scores(tuple(found), tuple(_perplexity(answerer, text) for text in texts))


def _perplexity(answerer: Answerer, text: HeldOutText) -> TaskScore:
    found = answerer.windows(text)
    values = tuple(-window.logp / window.tokens for window in found)
    return TaskScore(text.name, "general", PERPLEXITY, values, tuple(w.tokens for w in found), True)


def _losses(answerer: Answerer, task: Task) -> TaskScore:
    found = answerer.likelihoods([(question.prompt, question.answer) for question in task.questions])
    values = tuple(-answer.logp / answer.tokens for answer in found)
    weights = tuple(answer.tokens for answer in found)
    own = TaskScore(task.name, task.kind, task.scored_by.name, values, weights, True)
    return replace(own, parts=_groups(task, own))


def too_long_line(task: str, too_long: int, count: int, limit: str, longest: int | None = None) -> str:
    """The sentence for right answers that a model cannot give, because `limit` is too low."""
    needed = "" if longest is None else f"; the longest has {longest}"
    return (
        f"{too_long} of {count} right answers of {task} have more tokens than {limit}, so they count as "
        f"wrong{needed}"
    )


def _answers(answerer: Answerer, task: Task, max_tokens: int | None) -> TaskScore:
    lengths = [answerer.length(question.answer) for question in task.questions]
    limit = max_tokens or max(MIN_TOKENS, *lengths)
    answers = answerer.answer([question.prompt for question in task.questions], limit)
    judged = list(zip(task.questions, answers, strict=True))
    values = tuple(task.judge_of(question)(question, answer) for question, answer in judged)
    names = {task.judge_of(question).name for question in task.questions}
    wrong = [Wrong(*pair) for pair, value in zip(judged, values, strict=True) if value < 1]
    own = TaskScore(
        task.name,
        task.kind,
        names.pop() if len(names) == 1 else SEVERAL,
        values,
        (1,) * len(values),
        wrong=tuple(wrong[:WRONG_KEPT]),
        too_long=sum(length > limit for length in lengths),
    )
    return replace(own, parts={**_groups(task, own), **_figures(task, own, judged)})


def _figures(task: Task, own: TaskScore, judged: Sequence[tuple[Question, str]]) -> dict[str, TaskScore]:
    found: dict[str, list[float]] = {}
    for question, answer in judged:
        for name, value in task.judge_of(question).figures_of(question, answer).items():
            found.setdefault(name, []).append(value)
    return {
        name: TaskScore(own.task, own.kind, name, tuple(values), (1,) * len(values))
        for name, values in found.items()
    }


def _groups(task: Task, own: TaskScore) -> dict[str, TaskScore]:
    rows: dict[str, list[int]] = {}
    for row, question in enumerate(task.questions):
        if isinstance(question.fields.get("group"), str):
            rows.setdefault(f"group:{question.fields['group']}", []).append(row)
    return {name: _part(own, positions) for name, positions in rows.items()}


def _part(own: TaskScore, rows: Sequence[int]) -> TaskScore:
    values, weights = tuple(own.values[row] for row in rows), tuple(own.weights[row] for row in rows)
    return TaskScore(own.task, own.kind, own.judge, values, weights, own.lower_is_better)


def forgetting(base: Scores, scores: Scores) -> dict[str, tuple[float, Interval]]:
    """How much worse a model is than its base, by name, with paired 95 % intervals. Above 0 is worse.

    `forgetting` is the change of the general score, if there are general tasks. `forgetting:NAME` is the
    change of the loss of a held-out text, in nats per token.
    """
    found = {}
    change = scores.changes(base).get("general")
    if change is not None:
        lost, (low, high) = change
        worse = (lost, (low, high)) if scores.lower_is_better("general") else (-lost, (-high, -low))
        found["forgetting"] = worse
    for text, before in zip(scores.texts, base.texts, strict=True):
        loss, loss_before = replace(text, judge="loss"), replace(before, judge="loss")
        found[f"forgetting:{text.task}"] = loss.change_since(loss_before)
    # Rounded, because 0.995 - 0.975 is 0.02. Adding 0 makes 0 of a negative zero.
    return {name: (round(lost, 6) + 0.0, ends) for name, (lost, ends) in found.items()}
