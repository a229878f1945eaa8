"""The order of a run: warm up every arm, then rounds of every phase, each arm forth and back (A B B A).

Forth and back takes out, to first order, whatever drifts while a round lasts.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice

import httpx

from benchmarks.arms import Arm
from benchmarks.client import closed_loop
from benchmarks.passes import Pass
from benchmarks.phases import Phase
from benchmarks.workload import Prompts, completion_body

WARM_UP_TOKENS = 16


@dataclass
class Measured:
    """All that a run saw after its warm-up."""

    passes: list[Pass] = field(default_factory=list)
    loads: list[tuple[float, float, float]] = field(default_factory=list)
    """The machine's load averages at the start and after each round; what the run itself loads is in them."""


@dataclass(frozen=True)
class Measuring:
    """A client for each server by name, where prompts come from, and whom to tell of each pass."""

    clients: Mapping[str, httpx.AsyncClient]
    prompts: Prompts
    told: Callable[[str], None]

    async def run(self, phases: Sequence[Phase], rounds: int) -> Measured:
        """Warm up, then `rounds` rounds."""
        for phase in phases:
            for arm in phase.arms:
                await self._pass(phase, arm, -1, min(phase.max_tokens, WARM_UP_TOKENS))
        measured = Measured(loads=[os.getloadavg()])
        for number in range(rounds):
            for phase in phases:
                for arm in (*phase.arms, *reversed(phase.arms)):
                    measured.passes.append(await self._pass(phase, arm, number, phase.max_tokens))
            measured.loads.append(os.getloadavg())
        return measured

    async def _pass(self, phase: Phase, arm: Arm, number: int, max_tokens: int) -> Pass:
        self.told(f"{phase.name}: {arm.name}")
        models = islice(cycle(arm.models), phase.requests)
        texts = self.prompts.take(phase.requests, phase.prompt_chars)
        bodies = [
            completion_body(model, text, max_tokens, stream=phase.stream)
            for model, text in zip(models, texts, strict=True)
        ]
        rows, seconds = await closed_loop(self.clients[arm.server], bodies, phase.concurrency)
        return Pass(phase.name, arm.name, number, tuple(rows), seconds)


def steps(phases: Sequence[Phase], rounds: int) -> int:
    """How many passes `run` makes, for a progress bar."""
    return sum(len(phase.arms) for phase in phases) * (1 + 2 * rounds)
