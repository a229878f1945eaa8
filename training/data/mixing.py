"""Mix general with domain data at a stated ratio, by examples or by tokens, the same for the same seed.

No row is used twice: the mix is as large as its scarcest part allows, or as large as was asked for.

The parts of a mix, from what is general and what is of the domain.

GENERAL:DOMAIN, as a person writes a mix: `2:8` is one part in five general.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

from lora_compose.adapters.errors import CommandCode, InvalidRequest
from lora_compose.training.data.rows import Rows

Kind = Literal["general", "domain"]
Unit = Literal["examples", "tokens"]


@dataclass(frozen=True)
class MixSource:
    """A source and its share of the mix, relative to the others'."""

    rows: Rows
    share: float
    kind: Kind


@dataclass(frozen=True)
class Achieved:
    """What a part really has of the mix."""

    source: str
    kind: Kind
    examples: int
    tokens: int | None
    """None where nobody counted."""
    share: float
    """Of the unit that was mixed by."""


@dataclass(frozen=True)
class Mixed:
    """The mix, shuffled."""

    dataset: Any
    achieved: tuple[Achieved, ...]


def mix(
    parts: Sequence[MixSource],
    *,
    total: int | None,
    by: Unit,
    seed: int,
    count_tokens: Callable[[dict[str, Any]], int] | None = None,
) -> Mixed:
    """`total` counts what `by` says; None: as much as there is.

    Raises InvalidRequest: "mixed_forms" where the parts' columns differ, "too_few_rows" where a part has not
    enough for the total, "invalid_mix".
    """
    _check(parts, by, count_tokens)
    orders = [_shuffled(len(part.rows.dataset), seed, number) for number, part in enumerate(parts)]
    weights = [_weights(part, order, by, count_tokens) for part, order in zip(parts, orders, strict=True)]
    shares = [part.share / sum(each.share for each in parts) for part in parts]
    amount = min(sum(own) / share for own, share in zip(weights, shares, strict=True))
    if total is not None and total > amount * (1 + 1e-9):
        raise InvalidRequest(
            CommandCode.TOO_FEW_ROWS,
            f"The files give {amount:.0f} {by} at this ratio, fewer than {total}",
            "rows",
        )
    wanted = amount if total is None else float(total)
    taken = [
        order[: _count(own, wanted * share)]
        for order, own, share in zip(orders, weights, shares, strict=True)
    ]
    return Mixed(_joined(parts, taken, seed), _achieved(parts, taken, by, count_tokens))


def _check(parts: Sequence[MixSource], by: Unit, count_tokens: object) -> None:
    if not parts or any(part.share <= 0 for part in parts):
        raise InvalidRequest(CommandCode.INVALID_MIX, "A mix needs parts, each with a share above 0", "ratio")
    if by == "tokens" and count_tokens is None:
        raise InvalidRequest(
            CommandCode.INVALID_MIX, "To mix by tokens, a model's tokenizer has to count them", "model"
        )
    forms = {part.rows.form for part in parts}
    if len(forms) > 1:
        raise InvalidRequest(
            CommandCode.MIXED_FORMS, f"Rows of {' and '.join(sorted(forms))} do not mix", "domain"
        )


def _shuffled(count: int, seed: int, number: int) -> list[int]:
    order = list(range(count))
    random.Random(f"{seed}-{number}").shuffle(order)
    return order


def _weights(
    part: MixSource, order: Sequence[int], by: Unit, count_tokens: Callable[[dict[str, Any]], int] | None
) -> list[int]:
    if by == "examples" or count_tokens is None:
        return [1] * len(order)
    return [count_tokens(part.rows.dataset[row]) for row in order]


def _count(weights: Sequence[int], wanted: float) -> int:
    """How many of the first rows come nearest to `wanted`."""
    sums = [0, *accumulate(weights)]
    return min(range(len(sums)), key=lambda count: (abs(sums[count] - wanted), count))


def _joined(parts: Sequence[MixSource], taken: Sequence[Sequence[int]], seed: int) -> Any:
    from datasets import concatenate_datasets

    chosen = [part.rows.dataset.select(rows) for part, rows in zip(parts, taken, strict=True)]
    return concatenate_datasets(chosen).shuffle(seed=seed)


def _achieved(
    parts: Sequence[MixSource],
    taken: Sequence[Sequence[int]],
    by: Unit,
    count_tokens: Callable[[dict[str, Any]], int] | None,
) -> tuple[Achieved, ...]:
    tokens = [
        None if count_tokens is None else sum(count_tokens(part.rows.dataset[row]) for row in rows)
        for part, rows in zip(parts, taken, strict=True)
    ]
    amounts = [
        count if by == "tokens" and count is not None else len(rows)
        for count, rows in zip(tokens, taken, strict=True)
    ]
    return tuple(
        Achieved(part.rows.source, part.kind, len(rows), count, amount / max(sum(amounts), 1))
        for part, rows, count, amount in zip(parts, taken, tokens, amounts, strict=True)
    )


_RATIO = re.compile(r"\s*(\d+(?:\.\d+)?)\s*:\s*(\d+(?:\.\d+)?)\s*", re.ASCII)


def parse_ratio(text: str) -> tuple[float, float]:
    """The shares of general and of domain data; they add up to 1. Raises InvalidRequest("invalid_ratio")."""
    match = _RATIO.fullmatch(text)
    general, domain = map(float, match.groups()) if match else (0.0, 0.0)
    if not general + domain:
        raise InvalidRequest(
            CommandCode.INVALID_RATIO, f"{text!r} is no ratio: write GENERAL:DOMAIN, such as 2:8", "ratio"
        )
    return general / (general + domain), domain / (general + domain)


def parts_of(general: Sequence[Rows], domain: Sequence[Rows], ratio: str | None) -> list[MixSource]:
    """Each kind's share is split over its sources by their sizes; a kind without a share is left out."""
    shares = parse_ratio(ratio or "0:1")
    return [*_of_kind(general, shares[0], "general"), *_of_kind(domain, shares[1], "domain")]


def _of_kind(rows: Sequence[Rows], share: float, kind: Literal["general", "domain"]) -> list[MixSource]:
    total = sum(len(each.dataset) for each in rows)
    return [MixSource(each, share * len(each.dataset) / total, kind) for each in rows] if share else []


def token_counter(tokenizer: Any) -> Callable[[dict[str, Any]], int]:
    """Tokens of a row as the chat template of a tokenizer, or of a model's directory, writes it.

    Of a preference, both answers count."""
    if isinstance(tokenizer, str):
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(tokenizer)

    def length(messages: list[dict[str, str]]) -> int:
        return len(tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"])

    def count(row: dict[str, Any]) -> int:
        if "messages" in row:
            return length(row["messages"])
        answers = [row["completion"]] if "completion" in row else [row["chosen"], row["rejected"]]
        return sum(length([*row["prompt"], *answer]) for answer in answers)

    return count
