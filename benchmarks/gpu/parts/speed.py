"""Speed on an 8B shape with random weights: adapters, stacks, hot loads, a prototype of fusing in place.

Every batch has prompts of 64 tokens. The ladder runs twice, the second time in the other order, so that drift
shows.
"""

import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from lora_compose.benchmarks.gpu.engine import InProcessEngine, Weights, graph_options
from lora_compose.benchmarks.gpu.models import LLAMA_8B, TINY, write_adapters, write_config
from lora_compose.benchmarks.gpu.parts.in_place import fold_in_place, mark_fused
from lora_compose.benchmarks.gpu.run import CheckRun

ADAPTERS, RANK = 8, 16
PROMPT_TOKENS = 64
STACK = {0: 0.7, 1: 0.4, 2: -0.3, 3: 0.5}
LADDER: Mapping[str, Callable[[int], Weights]] = {
    "base": lambda _: {},
    "single": lambda _: {0: 1.0},
    "singles7": lambda i: {i % 7: 1.0},
    "stack4": lambda _: STACK,
    "stacks6": lambda i: {i % 6: 0.7, (i + 1) % 6: 0.4, (i + 2) % 6: -0.3, (i + 3) % 6: 0.5},
    "half-base-half-stack4": lambda i: STACK if i % 2 else {},
}
"""What request i of a batch asks for."""
HOT_LOADS: Mapping[str, Weights] = {"adapter": {7: 1.0}, "stack4": {4: 0.1, 5: 0.2, 6: 0.3, 7: 0.4}}
"""Compositions that the ladder does not use."""


def speed(run: CheckRun) -> None:
    """The ladder, then hot loads, then the ladder's main rungs while a stack is fused."""
    engine = _start(run)
    counts, tokens = ((2,), 8) if run.on_cpu else ((8, 32), 96)
    _warm_up(engine, counts[0])
    for repeat in range(2):
        rungs = list(LADDER.items())
        for name, weights in reversed(rungs) if repeat else rungs:
            for count in counts:
                figures = run_batch(engine, count, weights, tokens)
                run.say(f"throughput:{name}", concurrent=count, repeat=repeat, **figures)
    for name, one in HOT_LOADS.items():
        _hot_load(run, engine, counts[-1], name, one)
    if not run.on_cpu:
        _while_fused(run, engine, counts, tokens)


def _start(run: CheckRun) -> InProcessEngine:
    shape = TINY if run.on_cpu else LLAMA_8B
    model, adapters = run.work / "big", run.work / "big-adapters"
    write_config(model, shape)
    began = time.perf_counter()
    size = write_adapters(adapters, shape, [RANK] * ADAPTERS, run.device)
    run.say("adapters", ok=True, bytes_each=size, seconds=round(time.perf_counter() - began, 1))
    options: dict[str, Any] = {"load_format": "dummy", **graph_options(run)}
    if not run.on_cpu:
        options["gpu_memory_utilization"] = 0.8
    if run.eager:
        options |= {"enforce_eager": True, "compilation_config": {"mode": 0}}
    engine = InProcessEngine(run, model, adapters, **options)
    run.say("start", ok=True, seconds=round(engine.start_seconds, 1), **engine.facts())
    return engine


def _warm_up(engine: InProcessEngine, count: int) -> None:
    prepared = set()
    for weights in LADDER.values():
        for i in range(ADAPTERS - 1):
            spec = engine.spec(weights(i))
            if weights(i) and spec not in prepared:
                engine.prepare(weights(i))
                prepared.add(spec)
        run_batch(engine, count, weights, 4)


def run_batch(
    engine: InProcessEngine, count: int, weights: Callable[[int], Weights], tokens: int
) -> dict[str, float]:
    """Figures of `count` requests that start together."""
    draw = random.Random(count)
    for i in range(count):
        prompt = [draw.randrange(3, engine.vocabulary) for _ in range(PROMPT_TOKENS)]
        engine.add(prompt, weights(i), tokens)
    began, steps = time.perf_counter(), []
    while engine.is_busy:
        steps.append(engine.step())
    seconds = time.perf_counter() - began
    decode = sorted(steps[2:-1]) or steps
    return {
        "tokens_per_second": round(count * tokens / seconds, 1),
        "decode_ms_p50": _milliseconds(statistics.median(decode), 3),
        "decode_ms_p95": _milliseconds(decode[int(len(decode) * 0.95) - 1], 3),
        "first_step_ms": _milliseconds(steps[0], 1),
    }


def _hot_load(run: CheckRun, engine: InProcessEngine, count: int, name: str, weights: Weights) -> None:
    """The steps of a running batch while a composition is built, and then used for the first time."""
    tokens, quiet_steps = (40, 4) if run.on_cpu else (400, 30)
    for _ in range(count - 1):
        engine.add([5] * PROMPT_TOKENS, {0: 1.0}, tokens)
    quiet = [engine.step() for _ in range(quiet_steps)][3:]
    during: list[float] = []
    seconds = engine.prepare(weights, meanwhile=lambda: during.append(engine.step()))
    engine.add([5] * PROMPT_TOKENS, weights, 8)
    first = [engine.step() for _ in range(6)]
    while engine.is_busy:
        engine.step()
    run.say(
        f"hot load:{name}",
        prepare_seconds=round(seconds, 3),
        steps_meanwhile=len(during),
        quiet_ms_p50=_milliseconds(statistics.median(quiet)),
        during_ms_p50=_milliseconds(statistics.median(during)) if during else None,
        during_ms_max=_milliseconds(max(during)) if during else None,
        engine_held_ms_max=_milliseconds(max(engine.call_seconds)),
        first_use_steps_ms=[_milliseconds(step) for step in first],
    )


def _while_fused(run: CheckRun, engine: InProcessEngine, counts: tuple[int, ...], tokens: int) -> None:
    spec = engine.spec(STACK)
    run.say("fold in place", ok=True, **engine.rpc(fold_in_place, spec, 1.0)[0])
    engine.rpc(mark_fused, spec)
    for name in ("stack4", "base", "single"):
        run_batch(engine, counts[0], LADDER[name], 4)
        for count in counts:
            figures = run_batch(engine, count, LADDER[name], tokens)
            run.say(f"throughput while stack4 is fused:{name}", concurrent=count, **figures)


def _milliseconds(seconds: float, digits: int = 2) -> float:
    return round(seconds * 1e3, digits)
