"""Our LoRA kernels alone: right sums on this device, and microseconds of a call in a CUDA graph.

The batches are those of the part `big`: one adapter, seven, a stack of four, six stacks of four.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch

from lora_compose.benchmarks.gpu.parts.kernels import LAYERS_8B, LAYERS_TINY, LoraLinear, graph_microseconds
from lora_compose.benchmarks.gpu.run import CheckRun
from lora_compose.server.engine.device.batch_table import Members
from lora_compose.server.engine.device.trial import TOLERANCE, TrialLayer, TrialShape, self_check

ADAPTERS, RANK = 7, 16
ROWS, PREFILL_ROWS = (8, 32, 64), (512, 2048)
WEIGHTS = (0.7, 0.4, -0.3, 0.5)
BATCHES: Mapping[str, Callable[[int], Members]] = {
    "single": lambda _: {"m0": 1.0},
    "singles7": lambda i: {f"m{i % 7}": 1.0},
    "stack4": lambda _: {f"m{j}": weight for j, weight in enumerate(WEIGHTS)},
    "stacks6": lambda i: {f"m{(i + j) % 6}": weight for j, weight in enumerate(WEIGHTS)},
    "half-base-half-stack4": lambda i: {f"m{j}": w for j, w in enumerate(WEIGHTS)} if i % 2 else {},
    "none": lambda _: {},
}
"""The members of row i. "none": the kernels run and find nothing to do."""


def pooled(run: CheckRun) -> None:
    """The self-check, then a finding for each layer, batch and number of rows."""
    run = replace(run, kernels="pooled")
    dtype = torch.float16 if run.on_cpu else torch.bfloat16
    for checked in (torch.float32, torch.float16, torch.bfloat16):
        if run.attempt(f"pooled self-check:{checked}", partial(self_check, checked, run.device)):
            run.say(f"pooled self-check:{checked}", ok=True)
    for layer in LAYERS_TINY if run.on_cpu else LAYERS_8B:
        counts = (4,) if run.on_cpu else (*ROWS, *PREFILL_ROWS)
        shape = TrialShape(layer.d_in, layer.widths, max_ranks=128, max_rows=max(counts))
        trial = TrialLayer([RANK] * ADAPTERS, dtype, run.device, shape)
        for rows in counts:
            for name, members in BATCHES.items():
                _check(run, layer, trial, rows, name, members)


def _check(
    run: CheckRun,
    layer: LoraLinear,
    trial: TrialLayer,
    rows: int,
    name: str,
    members: Callable[[int], Members],
) -> None:
    wanted = [members(row) for row in range(rows)]
    x, y = trial.batch(rows)
    report: dict[str, object] = {}
    if any(wanted) and rows <= max(ROWS):
        error = trial.error(y, x, wanted)
        report = {"error": error, "ok": error < TOLERANCE[y.dtype]}
    first = trial.run(y, x, wanted)
    report["same_bits_again"] = bool(torch.equal(first, trial.again(y, x)))
    if not run.on_cpu:
        report["us"] = graph_microseconds(partial(trial.add, y.clone(), x))
    run.say(f"pooled:{layer.name}:{name}", rows=rows, **report)
