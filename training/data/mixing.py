"""Mix general data with domain data at a given ratio, by examples or by tokens.

A ratio is written GENERAL:DOMAIN: `2:8` is one fifth of general data. No row is used twice. The mix has the
requested size, or is as large as its smallest part allows. The same seed gives the same mix.
"""

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

from lora_compose.adapters.errors import CommandCode, InvalidRequest
from lora_compose.training.data.rows import Rows, concatenated

Kind = Literal["general", "domain"]
Unit = Literal["examples", "tokens"]


@dataclass(frozen=True)
class MixSource:
    """A source and its share of the mix, relative to the shares of the other sources."""

    rows: Rows
    share: float
    kind: Kind


@dataclass(frozen=True)
class ActualShare:
    """The actual share of a source in the mix."""

    source: str
    kind: Kind
    examples: int
    tokens: int | None
    """None if tokens were not counted."""
    share: float
    """Share of the mix, in examples or tokens as the ratio counts."""


@dataclass(frozen=True)
class Mixed:
    """The shuffled mix."""

    dataset: Any
    achieved: tuple[ActualShare, ...]


def mix(
    parts: Sequence[MixSource],
    *,
    total: int | None,
    by: Unit,
    seed: int,
    count_tokens: Callable[[dict[str, Any]], int] | None = None,
) -> Mixed:
    """`total` is in the unit of `by`. None: as large as possible.

    Raises InvalidRequest: "mixed_forms" if the parts have different columns, "too_few_rows" if a part is too
    small for the total, "invalid_mix".
    """
    _check(parts, by, count_tokens)
    orders = [_shuffled(len(part.rows.dataset), seed, number) for number, part in enumerate(parts)]
    weights = [_weights(part, order, by, count_tokens) for part, order in zip(parts, orders, strict=True)]
    sum_of_shares = sum(part.share for part in parts)
    shares = [part.share / sum_of_shares for part in parts]
    amount = min(sum(own) / share for own, share in zip(weights, shares, strict=True))
    if total is not None and total > amount * (1 + 1e-9):
        raise InvalidRequest(
            CommandCode.TOO_FEW_ROWS,
            f"The files have only {amount:.0f} {by} at this ratio, but {total} are requested",
            "rows",
        )
    wanted = amount if total is None else float(total)
    taken = [
        order[: _count(own, wanted * share)]
        for order, own, share in zip(orders, weights, shares, strict=True)
    ]
    return Mixed(_concatenated(parts, taken, seed), _actual_shares(parts, taken, by, count_tokens))


def _check(parts: Sequence[MixSource], by: Unit, count_tokens: object) -> None:
    if not parts or any(part.share <= 0 for part in parts):
        raise InvalidRequest(
            CommandCode.INVALID_MIX,
            "A mix needs at least one source, and every share must be above 0",
            "ratio",
        )
    if by == "tokens" and count_tokens is None:
        raise InvalidRequest(
            CommandCode.INVALID_MIX, "Mixing by tokens needs a model, whose tokenizer counts them", "model"
        )
    forms = {part.rows.form for part in parts}
    if len(forms) > 1:
        raise InvalidRequest(
            CommandCode.MIXED_FORMS, f"{' and '.join(sorted(forms))} rows cannot be mixed", "domain"
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
    """The number of first rows whose weights add up nearest to `wanted`."""
    sums = [0, *accumulate(weights)]
    return min(range(len(sums)), key=lambda count: (abs(sums[count] - wanted), count))


def _concatenated(parts: Sequence[MixSource], taken: Sequence[Sequence[int]], seed: int) -> Any:
    chosen = [part.rows.dataset.select(rows) for part, rows in zip(parts, taken, strict=True)]
    return concatenated(parts[0].rows.form, chosen).shuffle(seed=seed)


def _actual_shares(
    parts: Sequence[MixSource],
    taken: Sequence[Sequence[int]],
    by: Unit,
    count_tokens: Callable[[dict[str, Any]], int] | None,
) -> tuple[ActualShare, ...]:
    tokens = [
        None if count_tokens is None else sum(count_tokens(part.rows.dataset[row]) for row in rows)
        for part, rows in zip(parts, taken, strict=True)
    ]
    amounts = [
        count if by == "tokens" and count is not None else len(rows)
        for count, rows in zip(tokens, taken, strict=True)
    ]
    return tuple(
        ActualShare(part.rows.source, part.kind, len(rows), count, amount / max(sum(amounts), 1))
        for part, rows, count, amount in zip(parts, taken, tokens, amounts, strict=True)
    )


_RATIO = re.compile(r"\s*(\d+(?:\.\d+)?)\s*:\s*(\d+(?:\.\d+)?)\s*", re.ASCII)


def parse_ratio(text: str) -> tuple[float, float]:
    """The shares of general and domain data. They add up to 1. Raises InvalidRequest("invalid_ratio")."""
    match = _RATIO.fullmatch(text)
    general, domain = map(float, match.groups()) if match else (0.0, 0.0)
    if not general + domain:
        raise InvalidRequest(
            CommandCode.INVALID_RATIO,
            f"{text!r} is not a ratio. Write GENERAL:DOMAIN, for example 2:8",
            "ratio",
        )
    return general / (general + domain), domain / (general + domain)


def mix_sources(general: Sequence[Rows], domain: Sequence[Rows], ratio: str | None) -> list[MixSource]:
    """The sources with their shares. Sources of one kind split the kind's share by their sizes.

    A kind with a share of 0 is left out.
    """
    shares = parse_ratio(ratio or "0:1")
    return [*_of_kind(general, shares[0], "general"), *_of_kind(domain, shares[1], "domain")]


def _of_kind(rows: Sequence[Rows], share: float, kind: Literal["general", "domain"]) -> list[MixSource]:
    if not share:
        return []
    total = sum(len(source.dataset) for source in rows)
    return [MixSource(source, share * len(source.dataset) / total, kind) for source in rows]


def token_counter(tokenizer: Any) -> Callable[[dict[str, Any]], int]:
    """A function that counts the tokens of a row, written by the tokenizer's chat template.

    `tokenizer` is a tokenizer or a model's directory. In a preference, both answers count.
    """
    if isinstance(tokenizer, str):
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(tokenizer)

    def length(messages: list[dict[str, Any]], tools: str | None) -> int:
        offered = None if tools is None else json.loads(tools)
        written = tokenizer.apply_chat_template(messages, tools=offered, tokenize=True, return_dict=True)
        return len(written["input_ids"])

    def count(row: dict[str, Any]) -> int:
        tools = row.get("tools")
        if "messages" in row:
            return length(row["messages"], tools)
        answers = [row["completion"]] if "completion" in row else [row["chosen"], row["rejected"]]
        return sum(length([*row["prompt"], *answer], tools) for answer in answers)

    return count
