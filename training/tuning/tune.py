"""Tune a composition's weights against a running server, by exact matches on half of a validation set.

A stack does not need a build for new weights, so trying dozens of weights costs the server only the answers.
The other half is held out. Its score before and after shows whether the new weights are better.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

from lora_compose.adapters.composition.composition import Composition
from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.training.tuning.rows import Message, ValidationRow, halves
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
    """The result of tuning. Scores are shares of exact matches; `before` is with the original weights."""

    composition: Composition
    tuned_rows: int
    held_out_rows: int
    tuned_before: float
    tuned_after: float
    held_out_before: float
    held_out_after: float
    trials: int

    @property
    def pays(self) -> bool:
        """Whether the score on the held-out rows is better than before."""
        return self.held_out_after > self.held_out_before

    def to_dict(self) -> dict[str, Any]:
        """The JSON values for --json."""
        facts = {name: value for name, value in vars(self).items() if name != "composition"}
        return {"composition": self.composition.canonical} | facts


def with_weights(composition: Composition, weights: Weights) -> Composition:
    """`composition` with other weights, in the order of its members."""
    pairs = zip(composition.members, weights, strict=True)
    return replace(composition, members=tuple(replace(member, weight=weight) for member, weight in pairs))


def tune(
    stack: Composition,
    rows: Sequence[ValidationRow],
    server: Chats,
    seed: int,
    on_progress: Callable[[Trial], None] = lambda _: None,
) -> Tuned:
    """Search with one half of `rows`, and score both halves. Raises LoraComposeError("not_a_stack")."""
    if not stack.is_stack or len(stack.members) < 2:
        message = "Only weights of a stack of at least two adapters, such as roll+upper, can be searched"
        raise LoraComposeError(CommandCode.NOT_A_STACK, message, "composition")
    tuned, held_out = halves(rows, seed)
    if not held_out:
        raise LoraComposeError(
            CommandCode.BAD_VALIDATION, "The validation set needs at least two different prompts", "rows"
        )
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        scorer = WeightScorer(server, pool)
        best = search(
            len(stack.members), lambda weights: scorer.share(with_weights(stack, weights), tuned), on_progress
        )
        found = with_weights(stack, best.weights)
        return Tuned(
            composition=found,
            tuned_rows=len(tuned),
            held_out_rows=len(held_out),
            tuned_before=scorer.share(stack, tuned),
            tuned_after=best.score,
            held_out_before=scorer.share(stack, held_out),
            held_out_after=scorer.share(found, held_out),
            trials=len(scorer.scored),
        )


class WeightScorer:
    """Scores one composition at a time. Its rows are sent concurrently."""

    def __init__(self, server: Chats, pool: ThreadPoolExecutor) -> None:
        self._server, self._pool = server, pool
        self.scored: set[str] = set()
        """The compositions that were scored."""

    def share(self, composition: Composition, rows: Sequence[ValidationRow]) -> float:
        """The share of `rows` that `composition` answers exactly right."""
        model = composition.canonical
        self.scored.add(model)
        longest = max(len(row.completion.encode()) for row in rows) + ANSWER_MARGIN
        answers = self._pool.map(lambda row: self._server.answer(model, row.messages, longest), rows)
        return sum(answer == row.completion for answer, row in zip(answers, rows, strict=True)) / len(rows)


def with_versions(composition: Composition, ids: Mapping[str, str]) -> Composition:
    """`composition` with the version of each member.

    `ids` maps `name` or `name@ref` to, for example, `name@3`.
    """
    members = []
    for member in composition.members:
        _, at, version = ids.get(member.id, member.id).partition("@")
        members.append(replace(member, ref=version) if at else member)
    return replace(composition, members=tuple(members))
