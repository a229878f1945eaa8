"""The comparisons of a run: arms, the shape of their requests, and the number read off the answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.arms import Arm, layer_arms, prefill_arms, throughput_arms
from benchmarks.passes import Pass, median_ttft, output_throughput
from benchmarks.settings import Settings


@dataclass(frozen=True)
class Phase:
    """Every arm of it is held against the first."""

    name: str
    arms: tuple[Arm, ...]
    prompt_chars: int
    max_tokens: int
    requests: int
    concurrency: int
    stream: bool
    value: Callable[[Sequence[Pass]], float]
    unit: Literal["tokens/s", "s"]

    def meets(self, ratio: float, bound: float) -> bool:
        """Whether a ratio keeps a bound: throughput is to be at least that, a time at most."""
        return ratio >= bound if self.unit == "tokens/s" else ratio <= bound


def decoding(name: str, arms: tuple[Arm, ...], settings: Settings, *, stream: bool = False) -> Phase:
    """Output throughput in a closed loop."""
    return Phase(
        name,
        arms,
        prompt_chars=settings.prompt_chars,
        max_tokens=settings.output_tokens,
        requests=settings.requests,
        concurrency=settings.concurrency,
        stream=stream,
        value=output_throughput,
        unit="tokens/s",
    )


def prefill(arms: tuple[Arm, ...], settings: Settings) -> Phase:
    """Time to first token of long prompts, one at a time."""
    return Phase(
        "prefill",
        arms,
        prompt_chars=settings.prefill_chars,
        max_tokens=1,
        requests=settings.prefill_requests,
        concurrency=1,
        stream=True,
        value=median_ttft,
        unit="s",
    )


def all_phases(
    base: str, direct_base: str | None, adapters: Sequence[str], settings: Settings
) -> list[Phase]:
    """What a run measures; without a server to compare with, not the layer."""
    phases = [
        decoding("output throughput", throughput_arms(base, adapters), settings),
        prefill(prefill_arms(base, adapters), settings),
    ]
    if direct_base is not None:
        arms = layer_arms(base, direct_base)
        phases += [
            decoding("server layer", arms, settings),
            decoding("server layer, streamed", arms, settings, stream=True),
        ]
    return phases
