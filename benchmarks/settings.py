"""How much one run of the throughput benchmark measures. Written into the result as it is."""

from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True)
class Settings:
    """Raises ValueError, naming the flag and its value, for what cannot work."""

    rounds: int = 7
    """Every arm is measured once forth and once back in each round."""
    concurrency: int = 8
    """Requests in flight, all the time (closed loop)."""
    requests: int = 32
    """Requests of one pass over one arm."""
    output_tokens: int = 128
    """Every answer has exactly this length: `ignore_eos`, checked in `usage`."""
    prompt_chars: int = 32
    """Characters of a prompt whose decoding is measured."""
    prefill_chars: int = 900
    """Characters of a prompt whose prefill is measured; a token each on the embedded base."""
    prefill_requests: int = 6
    """Prefills of each arm in each half of a round, one at a time."""
    seed: int = 0
    """Of the prompts, which are fresh in every request, and of the bootstrap."""

    def __post_init__(self) -> None:
        for flag in ("rounds", "concurrency", "requests", "output_tokens", "prefill_requests"):
            if getattr(self, flag) < 1:
                raise ValueError(f"--{flag.replace('_', '-')} ({getattr(self, flag)}) must be at least 1")
        if self.requests % self.concurrency:
            raise ValueError(
                f"--requests ({self.requests}) must be a multiple of --concurrency ({self.concurrency}), "
                "so that no pass ends half empty"
            )

    def quick(self) -> Self:
        """A look instead of a measurement: few and small rounds."""
        return replace(self, rounds=min(self.rounds, 2), requests=self.concurrency * 2, prefill_requests=2)
