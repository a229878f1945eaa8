"""How likely a model finds given answers: the ground of held-out loss, of choices and of preferences."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from lora_compose.training.data.layouts import Message
from lora_compose.training.evaluation.scores import normal_interval

IGNORED = -100


@dataclass(frozen=True)
class Likelihood:
    """`logp` in nats is the sum over the answer's `tokens`, its end included."""

    logp: float
    tokens: int


def likelihoods(
    model: Any, tokenizer: Any, pairs: Sequence[tuple[Sequence[Message], str]], batch: int = 32
) -> list[Likelihood]:
    """Of each answer after its prompt, as the chat template writes them. The model keeps its mode."""
    was_training = model.training
    model.eval()
    try:
        rows = [_row(tokenizer, prompt, answer) for prompt, answer in pairs]
        starts = range(0, len(rows), batch)
        return [found for start in starts for found in _batched(model, rows[start : start + batch])]
    finally:
        model.train(was_training)


def _row(tokenizer: Any, prompt: Sequence[Message], answer: str) -> tuple[list[int], int]:
    """Token ids, and how many of them are the prompt's."""
    asked = tokenizer.apply_chat_template(list(prompt), add_generation_prompt=True, return_dict=True)[
        "input_ids"
    ]
    whole = tokenizer.apply_chat_template(
        [*prompt, {"role": "assistant", "content": answer}], return_dict=True
    )["input_ids"]
    same = 0
    while same < len(asked) and same < len(whole) and asked[same] == whole[same]:
        same += 1
    return whole, same


def _batched(model: Any, rows: Sequence[tuple[list[int], int]]) -> list[Likelihood]:
    import torch
    from torch.nn import functional

    width = max(len(ids) for ids, _ in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for row, (own, start) in enumerate(rows):
        ids[row, : len(own)] = torch.tensor(own)
        mask[row, : len(own)] = 1
        labels[row, start : len(own)] = torch.tensor(own[start:])
    device = model.device
    with torch.no_grad():
        logits = model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits[:, :-1].float()
    wanted = labels[:, 1:].to(device)
    losses = functional.cross_entropy(logits.transpose(1, 2), wanted, ignore_index=IGNORED, reduction="none")
    tokens = (wanted != IGNORED).sum(1)
    return [
        Likelihood(-loss, count) for loss, count in zip(losses.sum(1).tolist(), tokens.tolist(), strict=True)
    ]


def mean_loss(found: Sequence[Likelihood]) -> float:
    """Nats a token, over all tokens: exp of it is the perplexity."""
    return -sum(each.logp for each in found) / sum(each.tokens for each in found)


def loss_interval(found: Sequence[Likelihood]) -> tuple[float, float]:
    """95 % of `mean_loss`, over answers: that of a ratio, linearised, for long answers weigh more."""
    loss, length = mean_loss(found), fmean(each.tokens for each in found)
    return normal_interval([loss - (each.logp + loss * each.tokens) / length for each in found])
