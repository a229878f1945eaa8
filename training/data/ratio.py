"""GENERAL:DOMAIN, as a person writes a mix: `2:8` is one part in five general."""

import re

from adapters.errors import InvalidRequest

_RATIO = re.compile(r"\s*(\d+(?:\.\d+)?)\s*:\s*(\d+(?:\.\d+)?)\s*", re.ASCII)


def parse_ratio(text: str) -> tuple[float, float]:
    """The shares of general and of domain data; they add up to 1. Raises InvalidRequest("invalid_ratio")."""
    match = _RATIO.fullmatch(text)
    general, domain = map(float, match.groups()) if match else (0.0, 0.0)
    if not general + domain:
        raise InvalidRequest(
            "invalid_ratio", f"{text!r} is no ratio: write GENERAL:DOMAIN, such as 2:8", "ratio"
        )
    return general / (general + domain), domain / (general + domain)
