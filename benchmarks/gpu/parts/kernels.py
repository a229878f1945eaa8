"""vLLM's LoRA kernels by themselves, and a way to give each request its own weights between them.

`upstream`: vLLM's shrink and expand, unchanged. `weighted`: the result of the shrink is multiplied by a row
of weights for each token, one weight for each rank, before the expand. So one build serves a set of adapters
with any weights. Both are checked against float64, and timed on a GPU inside a CUDA graph.

With `--cpu`, Triton's interpreter runs both: it shows whether they are right.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from vllm.lora.layers import LoRAMapping
from vllm.lora.punica_wrapper import punica_gpu

from lora_compose.benchmarks.gpu.run import CheckRun

MEMBERS = 4
TOLERANCE = 2e-2
IN_ONE_GRAPH, REPLAYS, WARM_UP = 20, 12, 2


@dataclass(frozen=True)
class LoraLinear:
    """The slices of one wrapped linear, and the batch sizes to run it with."""

    name: str
    d_in: int
    widths: tuple[int, ...]
    row_counts: tuple[int, ...]


LAYERS_8B = (
    LoraLinear("qkv", 4096, (4096, 1024, 1024), (8, 32, 512)),
    LoraLinear("o", 4096, (4096,), (8, 32, 512)),
    LoraLinear("gate_up", 4096, (14336, 14336), (8, 32, 512)),
    LoraLinear("down", 14336, (4096,), (8, 32, 512)),
)
LAYERS_TINY = (LoraLinear("tiny", 64, (32, 16), (5,)),)


def kernels(run: CheckRun) -> None:
    """A finding for each layer and batch size."""
    if run.on_cpu:
        _avoid_pinned_memory()
    slots, rank = (2, 16) if run.on_cpu else (4, 64)
    draw = RandomTensors(run)
    for layer in LAYERS_TINY if run.on_cpu else LAYERS_8B:
        factors = SlotFactors.random(draw, layer, slots, rank)
        for rows in layer.row_counts:
            _check(run, KernelBatch(draw, layer, factors, rows))


def _avoid_pinned_memory() -> None:
    """Take no pinned memory, and the kernels without their custom op: both need a GPU."""
    from vllm.lora.ops.triton_ops import lora_expand_op, lora_shrink_op
    from vllm.lora.ops.triton_ops import utils as triton_utils
    from vllm.lora.punica_wrapper import utils

    def unpinned(values: object, dtype: torch.dtype, device: object) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype, device=str(device))

    for module in (utils, triton_utils):
        module.async_tensor_h2d = unpinned
    punica_gpu.lora_shrink, punica_gpu.lora_expand = lora_shrink_op._lora_shrink, lora_expand_op._lora_expand


class RandomTensors:
    """Random tensors on the run's device."""

    def __init__(self, run: CheckRun) -> None:
        self.device = run.device
        # Triton's interpreter multiplies the bits of bfloat16 as integers.
        self._dtype = torch.float16 if run.on_cpu else torch.bfloat16
        self._generator = torch.Generator(run.device).manual_seed(3)

    def normal(self, *size: int) -> torch.Tensor:
        """In the dtype of the kernels."""
        return self.exact(*size).to(self._dtype)

    def exact(self, *size: int) -> torch.Tensor:
        """In float32."""
        return torch.randn(*size, generator=self._generator, device=self.device)


@dataclass(frozen=True)
class SlotFactors:
    """The slots' stacked factors, a pair for each slice of the layer."""

    lora_a: tuple[torch.Tensor, ...]
    lora_b: tuple[torch.Tensor, ...]
    slots: int
    rank: int

    @classmethod
    def random(cls, draw: RandomTensors, layer: LoraLinear, slots: int, rank: int) -> "SlotFactors":
        """Scaled so that outputs are near 1."""
        d_in = layer.d_in
        lora_a = tuple(draw.normal(slots, 1, rank, d_in) * d_in**-0.5 for _ in layer.widths)
        lora_b = tuple(draw.normal(slots, 1, width, rank) * rank**-0.5 for width in layer.widths)
        return cls(lora_a, lora_b, slots, rank)


class KernelBatch:
    """Rows of every slot and of the base, in turn, and the weights of each row's ranks."""

    def __init__(self, draw: RandomTensors, layer: LoraLinear, factors: SlotFactors, rows: int) -> None:
        self.layer, self.factors, self.rows = layer, factors, rows
        self.slot_of = [row % (factors.slots + 1) - 1 for row in range(rows)]
        """-1 is a base row."""
        self.wrapper = self._wrapper(draw.device)
        self.x, self.y = draw.normal(rows, layer.d_in), draw.normal(rows, sum(layer.widths))
        by_member = draw.exact(rows, MEMBERS)
        self.rank_weights = by_member.repeat_interleave(factors.rank // MEMBERS, dim=1).contiguous()

    def _wrapper(self, device: str) -> Any:
        slots = self.factors.slots
        config = SimpleNamespace(
            max_loras=slots, specialize_active_lora=False, max_lora_rank=self.factors.rank
        )
        wrapper = punica_gpu.PunicaWrapperGPU(1024, 64, device, lora_config=config)
        ids = tuple(slot + 1 for slot in self.slot_of)
        mapping = LoRAMapping(ids, ids, is_prefill=True)
        wrapper.update_metadata(mapping, list(range(1, slots + 1)), slots, 1000)
        return wrapper

    def upstream(self, out: torch.Tensor) -> None:
        """Add `x A B` of each row's slot to `out`."""
        factors = self.factors
        self.wrapper.add_lora_linear(out, self.x, factors.lora_a, factors.lora_b, 1.0, self.layer.widths)

    def weighted(self, out: torch.Tensor) -> None:
        """Add `((x A) · weights) B` of each row's slot to `out`."""
        factors, widths = self.factors, self.layer.widths
        size = (len(widths), self.rows, factors.rank)
        buffer = torch.empty(size, dtype=torch.float32, device=out.device)
        self.wrapper.add_shrink(buffer, self.x, factors.lora_a, 1.0)
        buffer.mul_(self.rank_weights)
        self.wrapper.add_expand(out, buffer, factors.lora_b, widths, offset_start=0, add_inputs=True)

    def expected(self, rank_weights: torch.Tensor | None) -> torch.Tensor:
        """`y` plus the products, in float64, row by row."""
        result = self.y.double().clone()
        for row, slot in enumerate(self.slot_of):
            if slot >= 0:
                result[row] += self._product(row, slot, rank_weights)
        return result

    def _product(self, row: int, slot: int, rank_weights: torch.Tensor | None) -> torch.Tensor:
        products = []
        for lora_a, lora_b in zip(self.factors.lora_a, self.factors.lora_b, strict=True):
            shrunk = lora_a[slot, 0].double() @ self.x[row].double()
            if rank_weights is not None:
                shrunk = shrunk * rank_weights[row].double()
            products.append(lora_b[slot, 0].double() @ shrunk)
        return torch.cat(products)


def _check(run: CheckRun, batch: KernelBatch) -> None:
    report: dict[str, Any] = {}
    ways = (("upstream", batch.upstream, None), ("weighted", batch.weighted, batch.rank_weights))
    for way, call, rank_weights in ways:
        wanted, out = batch.expected(rank_weights), batch.y.clone()
        call(out)
        error = (out.double() - wanted).norm() / (wanted - batch.y.double()).norm()
        report[f"{way}_error"] = float(error)
        report[f"{way}_base_rows_untouched"] = _untouched(batch, out)
        if not run.on_cpu:
            report[f"{way}_us"] = graph_microseconds(partial(call, out))
    run.say(
        f"kernels:{batch.layer.name}",
        rows=batch.rows,
        rank=batch.factors.rank,
        ok=all(report[f"{w}_error"] < TOLERANCE and report[f"{w}_base_rows_untouched"] for w, _, _ in ways),
        **report,
    )


def _untouched(batch: KernelBatch, out: torch.Tensor) -> bool:
    base_rows: Sequence[int] = [row for row, slot in enumerate(batch.slot_of) if slot < 0]
    return bool((out[base_rows] == batch.y[base_rows]).all())


def graph_microseconds(call: Callable[[], None]) -> float:
    """The microseconds of one call: the median over replays of a CUDA graph that holds 20 calls."""
    cuda: Any = torch.cuda  # some of its classes have no types
    stream = cuda.Stream()
    with cuda.stream(stream):
        for _ in range(3):
            call()
    cuda.synchronize()
    graph = cuda.CUDAGraph()
    with cuda.graph(graph):
        for _ in range(IN_ONE_GRAPH):
            call()
    times: list[float] = []
    for _ in range(REPLAYS):
        begin, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        cuda.synchronize()
        times.append(begin.elapsed_time(end) * 1e3 / IN_ONE_GRAPH)
    return round(statistics.median(times[WARM_UP:]), 2)
