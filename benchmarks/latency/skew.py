"""How requests are spread over compositions."""

import random
from collections.abc import Iterator


def check_skew(text: str) -> None:
    """Raises ValueError."""
    name, _, exponent = text.partition(":")
    numeric = exponent.replace(".", "", 1).isdigit()
    if not (text in {"identical", "uniform", "distinct"} or (name == "zipf" and numeric)):
        raise ValueError(f"--skew ({text}) must be identical, uniform, distinct or zipf:S, such as zipf:1.1")


def spread_over(count: int, skew: str, draw: random.Random) -> Iterator[int]:
    """Endless indices below `count`. `distinct` goes round, so that neighbours differ whenever they can."""
    weights = [1.0] * count
    if skew.startswith("zipf:"):
        weights = [1 / (rank + 1) ** float(skew.removeprefix("zipf:")) for rank in range(count)]
    turn = 0
    while True:
        if skew == "identical":
            yield 0
        elif skew == "distinct":
            yield turn % count
            turn += 1
        else:
            yield draw.choices(range(count), weights)[0]
