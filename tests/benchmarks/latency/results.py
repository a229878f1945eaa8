"""Small results made up for tests of what is read out of them."""

import random
from dataclasses import asdict
from typing import Any

from benchmarks.latency.plan import Plan

CELL = "closed loop, 8 in flight"


def row(number: int, seconds: float, tokens: int = 4, failure: str | None = None) -> dict[str, Any]:
    """Sent one after another; the tokens come evenly."""
    sent = number * 0.001
    times = [sent + seconds * (place + 1) / tokens for place in range(tokens)]
    content = {"i": number, "composition": 0, "prompt": 0, "due": sent, "sent": sent, "ended": times[-1]}
    return content | {"times": times, "tokens": tokens, "prompt_tokens": 4, "failure": failure}


def result(seconds: dict[str, float], repeats: int = 5, noise: float = 0.02, seed: int = 0) -> dict[str, Any]:
    """Each arm's typical seconds a request; with noise of that share, some of it shared by a whole repeat."""
    draw = random.Random(seed)
    passes = []
    for repeat in range(repeats):
        shared = draw.gauss(1, 0.1)
        for arm, typical in seconds.items():
            each = [typical * shared * max(0.1, draw.gauss(1, noise)) for _ in range(20)]
            rows = [row(number, value) for number, value in enumerate(each)]
            passes.append({
                "cell": CELL,
                "arm": arm,
                "repeat": repeat,
                "began": 0.0,
                "seconds": sum(each),
                "rows": rows,
            })
    return {
        "schema": "lora-compose-bench/1",
        "created": "2026-01-01",
        "base": "base",
        "machine": {"cpus": 2, "cpu": "a cpu", "commit": None},
        "plan": asdict(Plan()),
        "passes": passes,
        "cold": [{"arm": "merge:2", "model": "m", "first_use_ttft": 1.1, "warm_ttft": 0.1}],
        "switches": [{"what": "fuse", "seconds": 0.5}, {"what": "restore", "seconds": 0.5}],
        "differences": [{"arm": "merge:2", "same_answers": 0.5, "mean_abs_logprob": 0.2}],
        "unlike_base": [],
        "skipped": {},
        "truncated": False,
    }
