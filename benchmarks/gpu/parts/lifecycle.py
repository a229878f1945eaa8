"""What happens to an adapter and to the base over time, against the dense reference.

Adapters are evicted and built again, loaded while others answer, fused and restored. A fusion also fails in
the middle. The engine has few slots and keeps few adapters in host memory, so both are full.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from lora_compose.benchmarks.gpu.engine import EngineAnswer, InProcessEngine, Weights, graph_options
from lora_compose.benchmarks.gpu.models import SMALL, TINY, write_adapters, write_checkpoint
from lora_compose.benchmarks.gpu.reference import DenseReference
from lora_compose.benchmarks.gpu.run import CheckRun
from lora_compose.server.engine.worker import extension

RANKS = [16, 8, 16, 8, 4, 16]
SLOTS, IN_MEMORY = 3, 4
ROOM = {"max_loras": SLOTS, "max_cpu_loras": IN_MEMORY}
PROMPTS = [[5, 9, 17, 3, 40, 8, 71, 12], [100, 4, 33, 61, 90, 7]]
TOKENS = 6
MOVES = 1000
LIMIT = 0.1
"""Mean |Δ logprob| to the reference. Answers of another composition are at 0.5 and more."""
BASE: Weights = {}
STACK: Weights = {0: 0.7, 1: 0.4}
SAME_ADAPTERS: Weights = {0: 0.1, 1: 0.9}
"""The adapters of `STACK`, so with our kernels requests for both have one LoRA id."""
OTHER_STACK: Weights = {0: 0.7, 2: -0.5, 4: 1.0}
SINGLES: list[Weights] = [{n: 1.0} for n in range(len(RANKS))]


class Lifecycle:
    """The engine, its reference, and one finding for each group of answers."""

    def __init__(self, run: CheckRun) -> None:
        self.run = run
        self.fused = BASE
        model, adapters = run.work / "lifecycle", run.work / "lifecycle-adapters"
        shape = TINY if run.on_cpu else SMALL
        write_checkpoint(model, shape, run.device)
        write_adapters(adapters, shape, RANKS, run.device)
        options: dict[str, Any] = {**ROOM, **graph_options(run)}
        if not run.on_cpu:
            options["gpu_memory_utilization"] = 0.25
        self.engine = InProcessEngine(run, model, adapters, **options)
        run.say("start", ok=True, seconds=round(self.engine.start_seconds, 1), **self.engine.facts())
        self.reference = DenseReference(model, adapters, run.device)

    def answers(self, weights: Weights) -> list[EngineAnswer]:
        """The answers in a batch of their own. A composition is prepared first."""
        if weights:
            self.engine.prepare(weights)
        return self.engine.generate(PROMPTS, [weights] * len(PROMPTS), TOKENS)

    def error(self, weights: Weights, answers: Sequence[EngineAnswer]) -> float:
        """The mean |Δ logprob| to the reference."""
        self.reference.compose(weights)
        return self.reference.distance(PROMPTS, answers).mean

    def check(self, check: str, compositions: Sequence[Weights]) -> None:
        """A finding: the largest error of the compositions, each in its own batch and all in one.

        vLLM's kernels for CPUs misread rows without LoRA in a batch with LoRA, so these rows are left out."""
        alone = {repr(weights): self.error(weights, self.answers(weights)) for weights in compositions}
        misread = self.run.on_cpu and self.run.kernels == "vllm"
        mixed = [weights for weights in compositions if not (misread and weights == self.fused)]
        jobs = [(prompt, weights) for weights in mixed for prompt in PROMPTS]
        answers = self.engine.generate([p for p, _ in jobs], [w for _, w in jobs], TOKENS)
        together = [
            self.error(weights, answers[at * len(PROMPTS) : (at + 1) * len(PROMPTS)])
            for at, weights in enumerate(mixed)
        ]
        worst = max(*alone.values(), *together)
        self.run.say(check, ok=worst < LIMIT, largest_error=round(worst, 4), alone=alone, together=together)

    def load_base(self, weights: Weights) -> None:
        """Fuse, or restore with the base."""
        self.engine.load_base(weights, self.run.work / "progress")
        self.fused = weights


def lifecycle(run: CheckRun) -> None:
    """All checks, in an order in which each could spoil those after it."""
    life = Lifecycle(run)
    before = life.answers(BASE)
    life.check("plain", [BASE, SINGLES[0]])
    life.check("stacks", [STACK, OTHER_STACK])
    _evict(life)
    _load_while_others_answer(life)
    if life.engine.runtime_weights:
        _move_sliders(life)
    _fail_in_the_middle(life, before)
    for number in range(2 if run.on_cpu else 20):
        life.load_base(STACK)
        if number == 0:
            life.check("while fused", [BASE, STACK, SAME_ADAPTERS])
            life.check("while fused, others", [OTHER_STACK, SINGLES[1]])
            _graphs(life)
            _dummy_batches(life)
        life.load_base(BASE)
        _say_equal(life, f"restored:{number}", before)
    life.check("after restoring", [BASE, STACK])
    _meter(life)


def _evict(life: Lifecycle) -> None:
    """More adapters than slots and than memory; the first ones again after the others."""
    for weights in (*SINGLES, *SINGLES[:2]):
        error = life.error(weights, life.answers(weights))
        life.run.say(f"evicted:{weights}", ok=error < LIMIT, largest_error=round(error, 4))


def _load_while_others_answer(life: Lifecycle) -> None:
    """An adapter is built between the steps of a running request."""
    engine, steps = life.engine, 0

    def step() -> None:
        nonlocal steps
        steps += 1
        engine.step()

    engine.unload(SINGLES[1])
    engine.prepare(SINGLES[0])
    engine.add(PROMPTS[0], SINGLES[0], 64)
    engine.prepare(SINGLES[1], meanwhile=step)
    while engine.is_busy:
        engine.step()
    life.check("hot load", [SINGLES[0], SINGLES[1]])
    life.run.say("hot load, steps meanwhile", ok=steps > 0, steps=steps)


def _move_sliders(life: Lifecycle) -> None:
    """Requests for one pair of adapters, each with weights of its own: nothing is built or copied."""
    moved: list[Weights] = [{0: step / 500 - 1, 1: 0.4 - step / 2000} for step in range(MOVES)]
    life.engine.prepare(moved[0])
    life.answers(moved[0])
    before = life.engine.rpc(_work_done)
    waits = [life.engine.prepare(weights) for weights in moved]
    answers = life.engine.generate([PROMPTS[0]] * MOVES, moved, 2)
    after = life.engine.rpc(_work_done)
    errors = []
    for step in range(0, MOVES, MOVES // 8):
        life.reference.compose(moved[step])
        errors.append(life.reference.distance(PROMPTS[:1], [answers[step]]).mean)
    life.run.say(
        f"{MOVES} moves of a slider",
        ok=max(errors) < LIMIT and before == after,
        largest_error=round(max(errors), 4),
        builds_and_copies=[before, after],
        longest_wait_ms=round(max(waits) * 1e3, 2),
    )


def _work_done(worker: Any) -> tuple[int, int]:
    """The adapters that are built, and how many were copied to the device until now."""
    manager = worker.model_runner.lora_manager
    return len(manager.prepared()["bytes"]), manager.uploads


def _fail_in_the_middle(life: Lifecycle, before: Sequence[EngineAnswer]) -> None:
    """A fusion whose checkpoint cannot be read to its end, and the recovery of the product's server."""
    life.engine.rpc(_break_reading, 5)
    try:
        life.load_base(STACK)
        failed = False
    except (OSError, RuntimeError):
        failed = True
    life.engine.rpc(_mend_reading)
    life.load_base(BASE)
    life.run.say("a fusion failed in the middle", ok=failed)
    _say_equal(life, "restored after a failure", before)


def _say_equal(life: Lifecycle, check: str, before: Sequence[EngineAnswer]) -> None:
    life.run.say(check, ok=life.answers(BASE) == before)


def _graphs(life: Lifecycle) -> None:
    """Which graphs the V1 model runner asks for. The V2 model runner has another dispatcher."""
    if not life.engine.rpc(_record_dispatch)[0]:
        return
    for weights, wanted in ((BASE, True), (STACK, False), (SINGLES[1], True)):
        life.engine.rpc(_dispatched)
        life.answers(weights)
        asked = life.engine.rpc(_dispatched)[0]
        life.run.say(f"graph while fused:{weights}", ok=asked == {wanted}, with_lora=sorted(asked))


def _dummy_batches(life: Lifecycle) -> None:
    """vLLM's batches without tokens, as data parallelism makes them, while something is fused."""
    if life.run.attempt("dummy batches", partial(life.engine.rpc, _run_dummies)):
        life.run.say("dummy batches", ok=True)
    life.check("after dummy batches", [BASE, STACK])


def _meter(life: Lifecycle) -> None:
    life.engine.rpc("read_meter")
    for weights in (BASE, SINGLES[0]):
        life.answers(weights)
    life.answers(BASE)
    reading = life.engine.rpc("read_meter")[0]
    counted = sum(count for _, count in reading["tokens"])
    life.run.say("meter", ok=counted > 0 and reading["busy_seconds"] > 0, **reading)


def _break_reading(_: Any, tensors: int) -> None:
    upstream = vars(extension)["folded_checkpoint"]

    def broken(*args: Any) -> Any:
        for number, item in enumerate(upstream(*args)):
            if number == tensors:
                raise OSError("the checkpoint cannot be read")
            yield item

    broken.upstream = upstream  # type: ignore[attr-defined]
    vars(extension)["folded_checkpoint"] = broken


def _mend_reading(_: Any) -> None:
    vars(extension)["folded_checkpoint"] = vars(extension)["folded_checkpoint"].upstream


def _record_dispatch(worker: Any) -> bool:
    runner = worker.model_runner
    dispatcher = getattr(runner, "cudagraph_dispatcher", None)
    if dispatcher is None:
        return False
    upstream: Callable[..., Any] = dispatcher.dispatch
    runner.asked = set()

    def dispatch(*args: Any, has_lora: bool = False, **kwargs: Any) -> Any:
        runner.asked.add(has_lora)
        return upstream(*args, has_lora=has_lora, **kwargs)

    dispatcher.dispatch = dispatch
    return True


def _dispatched(worker: Any) -> set[bool]:
    asked, worker.model_runner.asked = worker.model_runner.asked, set()
    found: set[bool] = asked
    return found


def _run_dummies(worker: Any) -> None:
    worker.execute_dummy_batch()
    runner = worker.model_runner
    if hasattr(runner, "input_batch"):  # the V1 model runner takes the number of adapters
        runner._dummy_run(SLOTS, uniform_decode=True, num_active_loras=SLOTS)
