"""`python -m lora_compose.server.engine.cpu.kernel_timing`: times the CPU LoRA kernels alone.

It times a layer's deltas as the server adds them (a `LayerPlan`, made once and run many times), vLLM's own
CPU ops, a matrix product and a sum of long vectors. Each repeat runs all of them in turn. The output is JSON
lines on stdout: progress first, the result in the last line. `benchmarks.studies.kernels` shows it.
"""

import itertools
import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch

from lora_compose.server.engine.cpu.batch import share_rows
from lora_compose.server.engine.cpu.kernel import add_deltas, scale_rows
from lora_compose.server.engine.cpu.layer_plan import Kernels, LayerPlan
from lora_compose.server.engine.cpu.packed_factors import PackedPair, pack_layer

GEMM_SIZE = 1024
STREAM_FLOATS = 1 << 24
SAMPLE_SECONDS = 0.01


@dataclass(frozen=True)
class KernelCase:
    """A batch with `adapters` adapters of one rank.

    Each has an equal share of the tokens, one after another."""

    tokens: int
    rank: int
    adapters: int


@dataclass
class Timed:
    """A function to time.

    A sample is the mean of `calls` calls, so that the clock's resolution does not matter."""

    way: str
    case: KernelCase | None
    run: Callable[[], object]
    calls: int = 1
    seconds: list[float] = field(default_factory=list)
    """Seconds of one call, by repeat."""

    def calibrate(self) -> None:
        """Run it once, because the first call includes one-time costs, and then choose `calls`."""
        self.run()
        self.calls = max(1, round(SAMPLE_SECONDS / self._sample()))

    def measure(self) -> None:
        """Take one more sample."""
        self.seconds.append(self._sample())

    def _sample(self) -> float:
        started = perf_counter()
        for _ in range(self.calls):
            self.run()
        return (perf_counter() - started) / self.calls


class Layer:
    """Random factors and inputs of a layer of `hidden` inputs and `out` outputs."""

    def __init__(self, case: KernelCase, hidden: int, out: int, draw: torch.Generator) -> None:
        count, rank = case.adapters, case.rank
        self.case = case
        self.lora_a = torch.randn(count, rank, hidden, generator=draw)
        self.lora_b = torch.randn(count, out, rank, generator=draw)
        self.x = torch.randn(case.tokens, hidden, generator=draw)
        self.counts = [len(part) for part in torch.arange(case.tokens).tensor_split(count)]

    def ours(self) -> Callable[[], object]:
        """The computation of a layer in the running engine."""
        names = [f"{number:03d}" for number in range(self.case.adapters)]
        batch = share_rows([{name: 1.0} for name in names], self.counts)
        out = self.lora_b.shape[1]
        pairs = [PackedPair(lora_A=a, lora_B=b) for a, b in zip(self.lora_a, self.lora_b, strict=True)]
        packs = [pack_layer([pair], [out]) for pair in pairs]
        kernels = {torch.float32: Kernels(add_deltas, scale_rows)}
        plan, y = LayerPlan(batch, packs, torch.float32, kernels), torch.zeros(len(self.x), out)
        return lambda: plan.add_deltas(y, self.x)

    def upstream(self) -> Callable[[], object] | None:
        """The computation of vLLM's punica wrapper for CPUs; None if its ops cannot be imported."""
        try:
            from vllm.lora.ops.torch_ops import bgmv_expand, bgmv_shrink
        except ImportError:
            return None
        slots = torch.repeat_interleave(torch.arange(self.case.adapters), torch.tensor(self.counts))
        shrunk = torch.zeros(len(self.x), self.case.rank)
        y = torch.zeros(len(self.x), self.lora_b.shape[1])

        def run() -> None:
            bgmv_shrink(self.x, self.lora_a, shrunk, slots, 1.0)
            bgmv_expand(shrunk, self.lora_b, y, slots, add_inputs=True)

        return run


def timed(options: Namespace) -> Iterator[Timed]:
    """Everything to time: first the machine's own limits, then the kernels."""
    draw = torch.Generator().manual_seed(options.seed)
    a, b = (torch.randn(GEMM_SIZE, GEMM_SIZE, generator=draw) for _ in range(2))
    product = torch.empty_like(a)
    yield Timed("gemm", None, lambda: torch.matmul(a, b, out=product))
    left, right = (torch.randn(STREAM_FLOATS, generator=draw) for _ in range(2))
    total = torch.empty_like(left)
    yield Timed("stream", None, lambda: torch.add(left, right, out=total))
    for numbers in itertools.product(options.tokens, options.ranks, options.adapters):
        case = KernelCase(*numbers)
        if case.adapters > case.tokens:
            continue
        layer = Layer(case, options.hidden, options.out, draw)
        yield Timed("ours", case, layer.ours())
        if (upstream := layer.upstream()) is not None:
            yield Timed("vllm", case, upstream)


@torch.inference_mode()
def measure(options: Namespace, on_progress: Callable[[int, int], None]) -> dict[str, Any]:
    """Every repeat runs everything once. The order is reversed in every second repeat."""
    everything = list(timed(options))
    for number, subject in enumerate(everything):
        subject.calibrate()
        on_progress(number, len(everything) * (options.repeats + 1))
    for repeat in range(options.repeats):
        for number, subject in enumerate(everything if repeat % 2 == 0 else reversed(everything)):
            subject.measure()
            on_progress(len(everything) * (repeat + 1) + number + 1, len(everything) * (options.repeats + 1))
    return {
        "threads": torch.get_num_threads(),
        "gemm_flops": 2 * GEMM_SIZE**3,
        "stream_bytes": 3 * 4 * STREAM_FLOATS,
        "rows": [
            {
                "way": subject.way,
                "seconds": subject.seconds,
                "calls": subject.calls,
                **(vars(subject.case) if subject.case else {}),
            }
            for subject in everything
        ],
    }


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def parse(arguments: list[str]) -> Namespace:
    """Parse the options. `lora_compose.benchmarks.studies.kernels` has their defaults."""
    parser = ArgumentParser(prog="python -m lora_compose.server.engine.cpu.kernel_timing")
    for name in ("tokens", "ranks", "adapters"):
        parser.add_argument(f"--{name}", type=_numbers, required=True)
    for name in ("hidden", "out", "repeats", "seed"):
        parser.add_argument(f"--{name}", type=int, required=True)
    return parser.parse_args(arguments)


def _write_line(**fields: object) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _write_line(result=measure(parse(sys.argv[1:]), lambda done, total: _write_line(done=done, total=total)))
