"""Whether a model prefers the chosen answers more than its reference does, and whether its answers got
longer.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from lora_compose.adapters.errors import CommandCode
from lora_compose.training.data.messages import Message
from lora_compose.training.evaluation.intervals import Interval, bootstrap, normal_interval, wilson
from lora_compose.training.evaluation.likelihood import likelihoods
from lora_compose.training.evaluation.models import LocalModel
from lora_compose.training.evaluation.served_chat import ServedChat
from lora_compose.training.evaluation.tasks import single_answer


@dataclass(frozen=True)
class PreferencePair:
    """Two answers to one prompt."""

    prompt: Sequence[Message]
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Preference:
    """Scores on held-out pairs.

    The implicit reward of an answer is `β (log π − log π_ref)`, arXiv:2305.18290.
    """

    count: int
    accuracy: float
    """Share of pairs in which the chosen answer has the higher reward. A draw counts half."""
    normalized_accuracy: float
    """The same with log-likelihoods per token, so that length has no effect."""
    margin: float
    """Mean reward of chosen minus rejected answers, in nats times β."""
    margin_interval: tuple[float, float]
    """Normal 95 % interval of the margin, over pairs."""

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy."""
        return wilson(self.accuracy * self.count, self.count)

    @property
    def normalized_interval(self) -> Interval:
        """Wilson's 95 % interval of the normalized accuracy."""
        return wilson(self.normalized_accuracy * self.count, self.count)


def read_pairs(source: str) -> list[PreferencePair]:
    """The pairs of a file of preferences. Raises DataRejected or InvalidRequest("not_preferences")."""
    from lora_compose.adapters.errors import InvalidRequest
    from lora_compose.training.data.rows import read_rows

    rows = read_rows(source)
    rows.refuse_tools("scored as pairs")
    if rows.form != "preference":
        raise InvalidRequest(
            CommandCode.NOT_PREFERENCES, f"{source} has {rows.form} rows, not preferences", "preferences"
        )
    return [
        PreferencePair(row["prompt"], single_answer(row["chosen"]), single_answer(row["rejected"]))
        for row in rows.dataset
    ]


def preference(
    model: Any,
    chat: ServedChat,
    pairs: Sequence[PreferencePair],
    reference: AbstractContextManager[Any],
    beta: float = 0.1,
) -> Preference:
    """Score the pairs. Inside the context `reference`, the model is its reference.

    `reference` is, for example, `model.disable_adapter()`.
    """
    answers = [(pair.prompt, answer) for pair in pairs for answer in (pair.chosen, pair.rejected)]
    found = likelihoods(model, chat, answers)
    with reference:
        before = likelihoods(model, chat, answers)
    rewards = [beta * (a.logp - b.logp) for a, b in zip(found, before, strict=True)]
    per_token = [a / b.tokens for a, b in zip(rewards, found, strict=True)]
    margins = [chosen - rejected for chosen, rejected in zip(rewards[::2], rewards[1::2], strict=True)]
    return Preference(
        len(pairs), _accuracy(rewards), _accuracy(per_token), fmean(margins), normal_interval(margins)
    )


def _accuracy(values: Sequence[float]) -> float:
    pairs = list(zip(values[::2], values[1::2], strict=True))
    return fmean(1.0 if chosen > rejected else 0.5 * (chosen == rejected) for chosen, rejected in pairs)


@dataclass(frozen=True)
class LengthDrift:
    """Mean length of the model's answers, in tokens, divided by that of its reference's answers."""

    ratio: float
    interval: Interval
    """95 %, paired: a bootstrap over prompts."""


def length_drift(
    model: Any,
    chat: ServedChat,
    prompts: Sequence[Sequence[Message]],
    reference: AbstractContextManager[Any],
    max_tokens: int,
) -> LengthDrift:
    """Compare the lengths of the answers of the model and of its reference to the same prompts."""
    own = _lengths(LocalModel(model, chat).answer(prompts, max_tokens), chat)
    with reference:
        before = _lengths(LocalModel(model, chat).answer(prompts, max_tokens), chat)

    def ratio(rows: Any) -> float:
        return float(own[rows].sum() / max(before[rows].sum(), 1e-9))

    return LengthDrift(ratio(slice(None)), bootstrap(ratio, len(own)))


def _lengths(answers: Sequence[str], chat: ServedChat) -> Any:
    import numpy as np

    return np.array([chat.length(answer) - 1 for answer in answers])
