"""How many answers one request asks for: `n` of each of its prompts, which vLLM makes all at once."""

from collections.abc import Mapping
from typing import Any


def sequences(body: Mapping[str, Any]) -> int:
    """At least 1. What vLLM will refuse counts as 1."""
    prompts = _prompts(body.get("prompt")) + _prompts(body.get("prompt_embeds"))
    return max(1, prompts) * max(1, _number(body.get("n")), _number(body.get("best_of")))


def _prompts(given: object) -> int:
    """A list of numbers is one prompt; of anything else, as many as it has."""
    if isinstance(given, list) and given and not isinstance(given[0], int):
        return len(given)
    return 0 if given is None else 1


def _number(given: object) -> int:
    """As vLLM reads it, which takes "3" and 3.0 for 3."""
    try:
        return int(given) if isinstance(given, int | float | str) else 1
    except (ValueError, OverflowError):
        return 1
