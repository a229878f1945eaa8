"""Small made-up results, for tests of the functions that read results."""

import random

from lora_compose.benchmarks.serving.results.document import (
    BenchmarkResult,
    Difference,
    FirstUse,
    Machine,
    Pass,
    RequestRow,
    Switch,
)
from lora_compose.benchmarks.serving.results.plan import Cell, Plan

CELL = Cell("closed", concurrency=8)
MACHINE = Machine(
    commit=None,
    uncommitted_changes=False,
    python="3.11",
    versions={},
    cpu="a cpu",
    cpus=2,
    platform="linux",
)


def row(number: int, seconds: float, tokens: int = 4, failure: str | None = None) -> RequestRow:
    """Sent one after another; the tokens come evenly."""
    sent = number * 0.001
    times = [sent + seconds * (place + 1) / tokens for place in range(tokens)]
    return RequestRow(
        i=number,
        composition=0,
        prompt=0,
        due=sent,
        sent=sent,
        ended=times[-1],
        times=times,
        tokens=tokens,
        prompt_tokens=4,
        failure=failure,
    )


def result(
    seconds: dict[str, float], repeats: int = 5, noise: float = 0.02, seed: int = 0
) -> BenchmarkResult:
    """Each arm's typical seconds a request; with noise of that share, some of it shared by a whole repeat."""
    draw = random.Random(seed)
    passes = []
    for repeat in range(repeats):
        shared = draw.gauss(1, 0.1)
        for arm, typical in seconds.items():
            each = [typical * shared * max(0.1, draw.gauss(1, noise)) for _ in range(20)]
            rows = [row(number, value) for number, value in enumerate(each)]
            passes.append(Pass(cell=CELL, arm=arm, repeat=repeat, began=0.0, seconds=sum(each), rows=rows))
    return BenchmarkResult(
        created="2026-01-01",
        seconds=1.0,
        command=[],
        machine=MACHINE,
        environment={},
        started=True,
        commands={},
        base="base",
        adapters=[],
        skipped={},
        plan=Plan(),
        workload_digest="",
        truncated=False,
        load_averages=[],
        passes=passes,
        cold=[FirstUse(arm="merge:2", model="m", first_use_ttft=1.1, warm_ttft=0.1)],
        switches=[
            Switch(what="fuse", model="m", seconds=0.5),
            Switch(what="restore", model=None, seconds=0.5),
        ],
        differences=[
            Difference(
                arm="merge:2",
                model="m",
                prompts=2,
                same_answers=0.5,
                mean_abs_logprob=0.2,
                max_abs_logprob=0.4,
            )
        ],
        unlike_base=[],
        memory=[],
        timeline=None,
    )
