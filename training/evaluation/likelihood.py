"""The likelihood that a model gives to answers. Held-out loss and preferences are computed from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from lora_compose.adapters.errors import CommandCode, InvalidRequest
from lora_compose.training.data.messages import Message
from lora_compose.training.evaluation.intervals import normal_interval
from lora_compose.training.evaluation.served_chat import ServedChat

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100


@dataclass(frozen=True)
class Likelihood:
    """The log-likelihood of an answer.

    `logp`, in nats, is the sum over its `tokens`, including the end token.
    """

    logp: float
    tokens: int


def likelihoods(
    model: Any, chat: ServedChat, pairs: Sequence[tuple[Sequence[Message], str]], batch: int = 32
) -> list[Likelihood]:
    """The likelihood of each answer after its prompt, written by the chat template.

    The model is in training or eval mode as before.
    """
    return likelihoods_of_ids(model, [answer_ids(chat, prompt, answer) for prompt, answer in pairs], batch)


def likelihoods_of_ids(
    model: Any, rows: Sequence[tuple[list[int], int]], batch: int = 32
) -> list[Likelihood]:
    """The likelihood of the token ids of each row after the first ones, whose number is its second value.

    The model is in training or eval mode as before.
    """
    was_training = model.training
    model.eval()
    try:
        starts = range(0, len(rows), batch)
        return [found for start in starts for found in _batched(model, rows[start : start + batch])]
    finally:
        model.train(was_training)


def answer_ids(chat: ServedChat, prompt: Sequence[Message], answer: str) -> tuple[list[int], int]:
    """Token ids of prompt and answer, and how many of them belong to the prompt."""
    start = chat.ids(prompt, answers_next=True)
    whole = chat.ids([*prompt, {"role": "assistant", "content": answer}])
    same = 0
    while same < len(start) and same < len(whole) and start[same] == whole[same]:
        same += 1
    return whole, same


def answer_logits(model: Any, rows: Sequence[tuple[list[int], int]]) -> tuple["Tensor", "Tensor"]:
    """The logits before each token, and the tokens, of which those outside the answers are IGNORED.

    `rows` are token ids and how many of them belong to the prompt. Shapes (rows, tokens - 1, vocabulary), in
    float32, and (rows, tokens - 1).
    """
    import torch

    width = max(len(ids) for ids, _ in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for row, (own, start) in enumerate(rows):
        ids[row, : len(own)] = torch.tensor(own)
        mask[row, : len(own)] = 1
        labels[row, start : len(own)] = torch.tensor(own[start:])
    device = model.device
    logits = model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits[:, :-1].float()
    return logits, labels[:, 1:].to(device)


def _batched(model: Any, rows: Sequence[tuple[list[int], int]]) -> list[Likelihood]:
    import torch
    from torch.nn import functional

    check_length(model, max(len(ids) for ids, _ in rows))
    with torch.no_grad():
        logits, wanted = answer_logits(model, rows)
    losses = functional.cross_entropy(logits.transpose(1, 2), wanted, ignore_index=IGNORED, reduction="none")
    tokens = (wanted != IGNORED).sum(1)
    return [
        Likelihood(-loss, count) for loss, count in zip(losses.sum(1).tolist(), tokens.tolist(), strict=True)
    ]


def check_length(model: Any, tokens: int) -> None:
    """Check that `tokens` fit the model, as a server checks it. Raises InvalidRequest("too_many_tokens")."""
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and tokens > limit:
        raise InvalidRequest(
            CommandCode.TOO_MANY_TOKENS,
            f"A question and its answer can have {tokens} tokens, but the base takes {limit}. Shorten the "
            "longest question, or lower --max-new-tokens (score_tokens in a recipe)",
            "tasks",
        )


def mean_loss(found: Sequence[Likelihood]) -> float:
    """Mean loss in nats over all tokens. Its exponential is the perplexity."""
    return -sum(answer.logp for answer in found) / sum(answer.tokens for answer in found)


def loss_interval(found: Sequence[Likelihood]) -> tuple[float, float]:
    """The 95 % interval of `mean_loss`, over answers.

    The mean loss is a ratio of two sums, because long answers weigh more. The interval is that of its
    linearisation.
    """
    loss, length = mean_loss(found), fmean(answer.tokens for answer in found)
    return normal_interval([loss - (answer.logp + loss * answer.tokens) / length for answer in found])
