"""The parts of a mix, from what is general and what is of the domain."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from training.data.mixing import Part
from training.data.ratio import parse_ratio
from training.data.reading import Rows


def parts_of(general: Sequence[Rows], domain: Sequence[Rows], ratio: str | None) -> list[Part]:
    """Each kind's share is split over its sources by their sizes; a kind without a share is left out."""
    shares = parse_ratio(ratio or "0:1")
    return [*_of_kind(general, shares[0], "general"), *_of_kind(domain, shares[1], "domain")]


def _of_kind(rows: Sequence[Rows], share: float, kind: Literal["general", "domain"]) -> list[Part]:
    total = sum(len(each.dataset) for each in rows)
    return [Part(each, share * len(each.dataset) / total, kind) for each in rows] if share else []


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
