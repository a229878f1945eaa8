"""Held-out text, whose perplexity shows whether a model still writes as its base does.

The text is cut into windows of WINDOW tokens. Each window is read on its own, without a chat template.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lora_compose.adapters.errors import CommandCode, InvalidRequest
from lora_compose.training.evaluation.likelihood import Likelihood, likelihoods_of_ids

WINDOW: Final = 256
"""Tokens of a window. A perplexity is only comparable with others of the same window."""
SHIPPED_TEXT: Final = "shipped"
"""The name of the text that is shipped."""
SHIPPED_FILE: Final = Path(__file__).with_name("plain_english.txt")
"""Written for this repository, so that no model was trained on it."""


@dataclass(frozen=True)
class HeldOutText:
    """A text and the name of its source."""

    name: str
    text: str


def load_text(source: str) -> HeldOutText:
    """The text of a UTF-8 file, or the shipped one.

    Raises InvalidRequest("source_not_found"), ("not_utf8") and ("no_rows").
    """
    file = SHIPPED_FILE if source == SHIPPED_TEXT else Path(source)
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest(CommandCode.NOT_UTF8, f"{source} is not UTF-8 text", "text") from error
    except OSError as error:
        raise InvalidRequest(
            CommandCode.SOURCE_NOT_FOUND, f"{source} cannot be read: {error.strerror}", "text"
        ) from error
    if not text.strip():
        raise InvalidRequest(CommandCode.NO_ROWS, f"{source} has no text", "text")
    return HeldOutText(source, text)


def text_likelihoods(model: Any, tokenizer: Any, text: HeldOutText) -> list[Likelihood]:
    """The likelihood of each window, without its first token.

    Raises InvalidRequest("no_rows") if the text has fewer than two tokens.
    """
    ids = tokenizer(text.text, verbose=False)["input_ids"]
    size = min(WINDOW, getattr(model.config, "max_position_embeddings", None) or WINDOW)
    windows = [ids[start : start + size] for start in range(0, len(ids), size)]
    kept = [(window, 1) for window in windows if len(window) > 1]
    if not kept:
        raise InvalidRequest(CommandCode.NO_ROWS, f"{text.name} has fewer than two tokens", "text")
    return likelihoods_of_ids(model, kept)
