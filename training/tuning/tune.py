"""Tune a composition's weights against a running server, by the score of half of a validation set.

A stack does not need a build for new weights, so trying dozens of weights costs the server only the answers.
The other half is held out. Its scores before and after show whether the new weights are better.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, Protocol

from lora_compose.adapters.composition.composition import Composition
from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.training.data.messages import Message
from lora_compose.training.evaluation.models import WithoutLikelihoods
from lora_compose.training.evaluation.scores import TaskScore, score
from lora_compose.training.evaluation.tasks import Task
from lora_compose.training.tuning.rows import halves
from lora_compose.training.tuning.weight_search import Trial, Weights, search

IN_FLIGHT = 16
"""Concurrent requests."""
ANSWER_MARGIN = 16
"""Tokens generated beyond the number of bytes of the longest right answer. A longer answer cannot match."""


class Chats(Protocol):
    """Answers prompts: lora_compose.server.client.chat.ChatClient, connected to a server."""

    def answer(self, model: str, messages: Sequence[Message], max_tokens: int) -> str:
        """The greedy answer. Raises LoraComposeError if the server refuses."""


@dataclass(frozen=True)
class Tuned:
    """The result of tuning. Scores are means of the judge's scores; `before` is with the original weights."""

    composition: Composition
    tuned_rows: int
    held_out_rows: int
    tuned_before: float
    tuned_after: float
    held_out_before: float
    held_out_after: float
    held_out_gain: tuple[float, float]
    """The 95 % interval of `held_out_after - held_out_before`."""
    held_out_interval: tuple[float, float]
    """The 95 % interval of `held_out_after`."""
    judge: str
    trials: int

    @property
    def pays(self) -> bool:
        """Whether the score on the held-out rows is better than before."""
        return self.held_out_after > self.held_out_before

    @property
    def is_sure(self) -> bool:
        """Whether the whole interval of the gain is above 0."""
        return self.held_out_gain[0] > 0

    def to_dict(self) -> dict[str, Any]:
        """The JSON values for --json."""
        facts = {name: value for name, value in vars(self).items() if name != "composition"}
        return {"composition": self.composition.canonical} | facts


def with_weights(composition: Composition, weights: Weights) -> Composition:
    """`composition` with other weights, in the order of its members."""
    pairs = zip(composition.members, weights, strict=True)
    return replace(composition, members=tuple(replace(member, weight=weight) for member, weight in pairs))


def check_stack(stack: Composition) -> None:
    """Raises LoraComposeError("not_a_stack") unless it is a stack of several adapters."""
    if not stack.is_stack or len(stack.members) < 2:
        message = "Only weights of a stack of at least two adapters, such as roll+upper, can be searched"
        raise LoraComposeError(CommandCode.NOT_A_STACK, message, "composition")


def tune(
    stack: Composition,
    task: Task,
    server: Chats,
    seed: int,
    on_progress: Callable[[Trial], None] = lambda _: None,
    seconds: float = math.inf,
) -> Tuned:
    """Search with one half of the rows of `task`, and score both halves.

    All of it takes about `seconds`: the search ends while there is time to score the held-out half. Raises
    LoraComposeError("not_a_stack")."""
    ends_at = monotonic() + seconds
    check_stack(stack)
    tuned, held_out = halves(task, seed)
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        scorer = WeightScorer(server, pool)
        started = monotonic()
        before = scorer.score(stack, held_out)
        ends_at -= monotonic() - started
        best = search(
            len(stack.members),
            lambda weights: scorer.score(with_weights(stack, weights), tuned).score,
            on_progress,
            ends_at - monotonic(),
            perfect=1.0,
        )
        found = with_weights(stack, best.weights)
        after = scorer.score(found, held_out)
        _, interval = after.change_since(before)
        return Tuned(
            composition=found,
            tuned_rows=len(tuned.questions),
            held_out_rows=len(held_out.questions),
            tuned_before=scorer.score(stack, tuned).score,
            tuned_after=best.score,
            held_out_before=before.score,
            held_out_after=after.score,
            held_out_gain=interval,
            held_out_interval=after.interval,
            judge=task.judge.name,
            trials=len(scorer.scored),
        )


class WeightScorer:
    """Scores one composition at a time. Its rows are sent concurrently."""

    def __init__(self, server: Chats, pool: ThreadPoolExecutor) -> None:
        self._server, self._pool = server, pool
        self._known: dict[tuple[str, str], TaskScore] = {}

    @property
    def scored(self) -> set[str]:
        """The compositions that were scored."""
        return {model for model, _ in self._known}

    def score(self, composition: Composition, task: Task) -> TaskScore:
        """The judge's scores of the answers of `composition`. They are computed once."""
        key = composition.canonical, task.digest
        if key not in self._known:
            answerer = _Served(self._server, self._pool, composition.canonical)
            self._known[key] = score(answerer, [task]).tasks[0]
        return self._known[key]


@dataclass(frozen=True)
class _Served(WithoutLikelihoods):
    """A composition at a server, as an Answerer of `lora_compose.training.evaluation`."""

    server: Chats
    pool: ThreadPoolExecutor
    model: str

    def answer(self, prompts: Sequence[Sequence[Message]], max_tokens: int) -> list[str]:
        return list(self.pool.map(lambda one: self.server.answer(self.model, one, max_tokens), prompts))

    def length(self, answer: str) -> int:
        return len(answer.encode()) + ANSWER_MARGIN


def with_versions(composition: Composition, ids: Mapping[str, str]) -> Composition:
    """`composition` with the version of each member.

    `ids` maps `name` or `name@ref` to, for example, `name@3`.
    """
    members = []
    for member in composition.members:
        _, at, version = ids.get(member.id, member.id).partition("@")
        members.append(replace(member, ref=version) if at else member)
    return replace(composition, members=tuple(members))
