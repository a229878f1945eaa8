"""The texts of a normalised row: what is compared, and what is changed when something is masked."""

import re
import unicodedata
from collections.abc import Callable, Iterator

from training.data.messages import Row


def whole_text(row: Row) -> str:
    """Everything that is said, column by column."""
    return "\n".join(message["content"] for column in row.values() for message in column)


def asked_text(row: Row) -> str:
    """What a person says: of two rows that ask the same, one must not be trained on to answer the other."""
    messages = row["prompt"] if "prompt" in row else row["messages"]
    return "\n".join(message["content"] for message in messages if message["role"] == "user")


def answers(row: Row) -> Iterator[str]:
    """What is learnt to be said; of preferences both answers."""
    for column, messages in row.items():
        for message in messages:
            if column != "prompt" and message["role"] == "assistant":
                yield message["content"]


def changed(row: Row, change: Callable[[str], str]) -> Row:
    """The row with every text changed."""
    return {
        column: [{"role": message["role"], "content": change(message["content"])} for message in messages]
        for column, messages in row.items()
    }


def normalized(text: str) -> str:
    """NFKC, case folded, every run of space one: what two copies of a text have in common."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text).casefold()).strip()
