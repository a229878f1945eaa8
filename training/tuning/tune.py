"""Tune a composition's weights against a running server, by exact match on half of a validation set.

A stack needs no building for other weights, so trying some dozens of them costs a server only the answers.
The other half is never searched on: what it scores before and after says whether the weights are worth it.
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
"""Requests at a time."""
ANSWER_MARGIN = 16
"""Tokens an answer may be longer than the longest right one has bytes: more could not match any more."""


class Chats(Protocol):
    """What answers: lora_compose.server.client.chat.ChatClient, connected to a server."""

    def answer(self, model: str, messages: Sequence[Message], max_tokens: int) -> str:
        """The greedy answer. Raises LoraComposeError where it is refused."""


@dataclass(frozen=True)
class Tuned:
    """What tuning found. Shares of exact matches; `before` is with the weights the composition came with."""

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
        """Whether the rows that were not searched on gain by it."""
        return self.held_out_after > self.held_out_before

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        facts = {name: value for name, value in vars(self).items() if name != "composition"}
        return {"composition": self.composition.canonical} | facts


def with_weights(composition: Composition, weights: Weights) -> Composition:
    """The same members, in their order, at other weights."""
    pairs = zip(composition.members, weights, strict=True)
    return replace(composition, members=tuple(replace(member, weight=weight) for member, weight in pairs))


def tune(
    asked: Composition,
    rows: Sequence[ValidationRow],
    server: Chats,
    seed: int,
    told: Callable[[Trial], None] = lambda _: None,
) -> Tuned:
    """Search on one half of `rows`, report both. Raises LoraComposeError("not_a_stack") for a merge."""
    if not asked.is_stack or len(asked.members) < 2:
        message = "Only the weights of a stack of two or more adapters can be searched, such as roll+upper"
        raise LoraComposeError(CommandCode.NOT_A_STACK, message, "composition")
    tuned, held_out = halves(rows, seed)
    if not held_out:
        raise LoraComposeError(
            CommandCode.BAD_VALIDATION, "The validation set needs at least two different prompts", "rows"
        )
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        scorer = WeightScorer(server, pool)
        best = search(len(asked.members), lambda w: scorer.share(with_weights(asked, w), tuned), told)
        found = with_weights(asked, best.weights)
        return Tuned(
            composition=found,
            tuned_rows=len(tuned),
            held_out_rows=len(held_out),
            tuned_before=scorer.share(asked, tuned),
            tuned_after=best.score,
            held_out_before=scorer.share(asked, held_out),
            held_out_after=scorer.share(found, held_out),
            trials=len(scorer.asked),
        )


class WeightScorer:
    """Asks the rows of one composition at a time, many in flight."""

    def __init__(self, server: Chats, pool: ThreadPoolExecutor) -> None:
        self._server, self._pool = server, pool
        self.asked: set[str] = set()
        """Every composition it scored."""

    def share(self, composition: Composition, rows: Sequence[ValidationRow]) -> float:
        """How many of `rows` it answers exactly right."""
        model = composition.canonical
        self.asked.add(model)
        longest = max(len(row.completion.encode()) for row in rows) + ANSWER_MARGIN
        answers = self._pool.map(lambda row: self._server.answer(model, row.messages, longest), rows)
        return sum(a == row.completion for a, row in zip(answers, rows, strict=True)) / len(rows)


def pinned(asked: Composition, ids: Mapping[str, str]) -> Composition:
    """`asked` with each member at the version it resolved to: `ids` maps `name` or `name@ref` to `name@3`."""
    members = []
    for member in asked.members:
        _, at, version = ids.get(member.id, member.id).partition("@")
        members.append(replace(member, ref=version) if at else member)
    return replace(asked, members=tuple(members))
