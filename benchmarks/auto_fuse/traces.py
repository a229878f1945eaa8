"""Seeded traffic for the simulation of the fuse policy: the tokens of each second, by composition.

The traffic does not depend on the speed of the server. Its rate is about two thirds of what the base alone
can serve. Each request is drawn independently, so the shares fluctuate as in real traffic.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from lora_compose.server.fusion.token_prices import Model

REQUEST_TOKENS = 16
REQUESTS_PER_SECOND = 40
TOKENS_PER_SECOND = 1000.0
"""Largest throughput of the simulated server, for tokens without LoRA work."""

Second = Mapping[Model, int]
Shares = Mapping[Model, float]

HOT: Shares = {"hot@1": 0.9, None: 0.05, "warm@1": 0.025, "mild@1": 0.025}
QUIET: Shares = {None: 0.9, "warm@1": 0.1}


@dataclass(frozen=True)
class Trace:
    """The traffic of each second."""

    name: str
    seconds: tuple[Second, ...]

    @property
    def models(self) -> list[str]:
        """All requested compositions, without the base, in a fixed order."""
        return sorted({model for second in self.seconds for model in second if model is not None})


def draw(rng: Random, shares: Shares, requests: int = REQUESTS_PER_SECOND) -> Second:
    """One second with `requests` requests. The composition of each is drawn by its share."""
    drawn = rng.choices(list(shares), list(shares.values()), k=requests)
    return {model: count * REQUEST_TOKENS for model, count in Counter(drawn).items()}


def steady(seed: int, seconds: int) -> Trace:
    """One adapter gets nine tenths of the traffic in every second."""
    return _unchanging("steady hot adapter", HOT, seed, seconds)


def even(seed: int, seconds: int, adapters: int) -> Trace:
    """All adapters get equal shares, and the base gets no traffic."""
    shares: Shares = {f"a{number}@1": 1.0 for number in range(adapters)}
    return _unchanging(f"even mix of {adapters}", shares, seed, seconds)


def zipf(seed: int, seconds: int, adapters: int = 50, exponent: float = 1.1) -> Trace:
    """The share of the k-th adapter is proportional to k ** -exponent."""
    shares: Shares = {f"a{rank}@1": float(rank) ** -exponent for rank in range(1, adapters + 1)}
    return _unchanging(f"zipf {exponent:g} over {adapters}", shares, seed, seconds)


def alternating(seed: int, seconds: int, turn: int) -> Trace:
    """Two adapters take turns. Each one gets all traffic for `turn` seconds."""
    rng = Random(seed)
    turns: Sequence[Shares] = ({"left@1": 1.0}, {"right@1": 1.0})
    drawn = tuple(draw(rng, turns[second // turn % 2]) for second in range(seconds))
    return Trace(f"alternating every {turn} s", drawn)


def bursty(seed: int, seconds: int, mean_phase: float = 120.0) -> Trace:
    """Hot phases and quiet phases of mostly base traffic. Their lengths are exponentially distributed."""
    rng = Random(seed)
    drawn: list[Second] = []
    hot = False
    while len(drawn) < seconds:
        shares, requests = (HOT, REQUESTS_PER_SECOND) if hot else (QUIET, REQUESTS_PER_SECOND // 4)
        length = 1 + round(rng.expovariate(1 / mean_phase))
        drawn.extend(draw(rng, shares, requests) for _ in range(length))
        hot = not hot
    return Trace("bursty", tuple(drawn[:seconds]))


def _unchanging(name: str, shares: Shares, seed: int, seconds: int) -> Trace:
    rng = Random(seed)
    return Trace(name, tuple(draw(rng, shares) for _ in range(seconds)))
