"""What is sent and when, from a seed alone: the same seed gives the same requests at the same times."""

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from benchmarks.latency.plan import Cell, Plan
from benchmarks.latency.skew import spread_over


@dataclass(frozen=True)
class Planned:
    """One request: which composition, which prompt of the pool, the second it is due (0 in a closed loop)."""

    composition: int
    prompt: int
    due: float
    salt: str


def planned(plan: Plan, cell: Cell, repeat: int) -> list[Planned]:
    """The requests of one pass. The same for every arm, so that arms differ in nothing else."""
    draw = random.Random(f"{plan.seed}/{cell.load}/{repeat}")
    spread = spread_over(plan.compositions, plan.skew, draw)
    due, found = 0.0, []
    for number, composition in enumerate(islice(spread, plan.requests)):
        if cell.rate is not None:
            # Gamma gaps with mean 1/rate; shape 1 is Poisson (as `vllm bench serve --burstiness`).
            due += draw.gammavariate(plan.burstiness, 1 / (cell.rate * plan.burstiness))
        salt = hashlib.sha256(f"{plan.seed}/{cell.load}/{repeat}/{number}".encode()).hexdigest()
        found.append(Planned(composition, draw.randrange(plan.pool), due, salt))
    return found


def workload_digest(plan: Plan, pool: Sequence[Sequence[int]]) -> str:
    """sha256 of everything that is sent: two runs with the same one asked for the same."""
    passes = [
        [[one.composition, one.prompt, round(one.due, 9)] for one in planned(plan, cell, repeat)]
        for cell in plan.cells()
        for repeat in range(plan.repeats)
    ]
    text = json.dumps([list(map(list, pool)), passes, plan.output_tokens, plan.arms])
    return hashlib.sha256(text.encode()).hexdigest()


def body(model: str, prompt: Sequence[int], output_tokens: int, salt: str) -> dict[str, Any]:
    """A streamed `POST /v1/completions` with an answer of exactly `output_tokens` tokens, greedy."""
    return {
        "model": model,
        "prompt": list(prompt),
        "max_tokens": output_tokens,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "cache_salt": salt,
        "return_token_ids": True,
    }
