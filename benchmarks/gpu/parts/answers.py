"""Are the answers right? A small model against the dense reference, before, while and after a fusion.

Each composition answers in one batch with all others, and in a batch of its own. Its answers have to be near
its own reference, and far from the base's. Otherwise an engine without LoRA would pass.
"""

import random
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from lora_compose.benchmarks.gpu.engine import EngineAnswer, InProcessEngine, Weights, graph_options
from lora_compose.benchmarks.gpu.models import SMALL, TINY, write_adapters, write_checkpoint
from lora_compose.benchmarks.gpu.reference import DenseReference, Distance
from lora_compose.benchmarks.gpu.run import CheckRun

MIXES: dict[str, Weights] = {
    "base": {},
    "single": {0: 1.0},
    "half": {1: 0.5},
    "stack2": {0: 0.7, 1: 0.4},
    "stack4": {0: 0.7, 1: 0.4, 2: -0.3, 3: 0.5},
}
FUSED = "stack2"
RANKS = [16, 8, 16, 8]
ANSWER_TOKENS = 12
LEAST_LIMIT = 0.08
"""Mean |Δ logprob| below which answers are right in any case; else four times the base's own."""


def eager(run: CheckRun) -> None:
    """Without CUDA graphs."""
    _answers(run, enforce_eager=True)


def under_graphs(run: CheckRun) -> None:
    """With CUDA graphs for decoding."""
    _answers(run, **graph_options(run))


def _answers(run: CheckRun, **options: Any) -> None:
    model, adapters = run.work / "small", run.work / "small-adapters"
    shape = TINY if run.on_cpu else SMALL
    write_checkpoint(model, shape, run.device)
    write_adapters(adapters, shape, RANKS, run.device)
    if not run.on_cpu:
        options = {"gpu_memory_utilization": 0.25, **options}
    engine = InProcessEngine(run, model, adapters, **options)
    run.say("start", ok=True, seconds=round(engine.start_seconds, 1), **engine.facts())
    reference = DenseReference(model, adapters, run.device)
    check_mixes(run, engine, reference, fused="")
    seconds = timed_load_base(run, engine, MIXES[FUSED])
    check_mixes(run, engine, reference, fused=FUSED)
    restore_seconds = timed_load_base(run, engine, {})
    check_mixes(run, engine, reference, fused="restored")
    run.say("fuse", ok=True, seconds=round(seconds, 2), restore_seconds=round(restore_seconds, 2))


def timed_load_base(run: CheckRun, engine: InProcessEngine, weights: Weights) -> float:
    """The seconds that fusing takes. If it raises after the weights changed, the check goes on with them."""
    began = time.perf_counter()
    run.attempt(f"load_base:{len(weights)} members", lambda: engine.load_base(weights, run.work / "progress"))
    return time.perf_counter() - began


def check_mixes(run: CheckRun, engine: InProcessEngine, reference: DenseReference, fused: str) -> None:
    """One finding for each mix."""
    prompts = _prompts(engine.vocabulary)
    for name, weights in MIXES.items():
        if weights:
            run.attempt(f"prepare:{name} {{'fused': '{fused}'}}", partial(engine.prepare, weights))
    mixed = _in_one_batch(engine, prompts)
    alone = {
        name: engine.generate(prompts, [weights] * len(prompts), ANSWER_TOKENS)
        for name, weights in MIXES.items()
    }
    reference.compose({})
    to_base = {
        name: (reference.distance(prompts, mixed[name]), reference.distance(prompts, alone[name]))
        for name in MIXES
    }
    limit = max(LEAST_LIMIT, 4 * to_base["base"][0].mean)
    for name, weights in MIXES.items():
        reference.compose(weights)
        own = reference.distance(prompts, mixed[name]), reference.distance(prompts, alone[name])
        same = [a.tokens for a in mixed[name]] == [a.tokens for a in alone[name]]
        is_right = own[0].mean < limit and own[1].mean < limit
        is_apart = name == "base" or to_base[name][0].mean > 3 * own[0].mean
        run.say(
            f"logprobs:{name}",
            ok=is_right and is_apart,
            **_figures(own, to_base[name]),
            same_tokens_mixed_and_alone=same,
            fused=fused,
        )


def _prompts(vocabulary: int) -> list[list[int]]:
    draw = random.Random(7)
    return [[draw.randrange(3, vocabulary) for _ in range(draw.randrange(12, 40))] for _ in range(3)]


def _in_one_batch(engine: InProcessEngine, prompts: Sequence[Sequence[int]]) -> dict[str, list[EngineAnswer]]:
    jobs = [(prompt, name) for prompt in prompts for name in MIXES]
    answers = engine.generate(
        [prompt for prompt, _ in jobs], [MIXES[name] for _, name in jobs], ANSWER_TOKENS
    )
    found: dict[str, list[EngineAnswer]] = {name: [] for name in MIXES}
    for (_, name), answer in zip(jobs, answers, strict=True):
        found[name].append(answer)
    return found


def _figures(own: tuple[Distance, Distance], to_base: tuple[Distance, Distance]) -> dict[str, float]:
    """The distances of the mixed batch and of its own batch, to its own reference and to the base's."""
    return {
        "mixed_batch": round(own[0].mean, 4),
        "alone": round(own[1].mean, 4),
        "worst": round(own[0].worst, 3),
        "same_best_token": round(own[0].same_best_token, 3),
        "against_base": round(to_base[0].mean, 3),
        "alone_against_base": round(to_base[1].mean, 3),
    }
