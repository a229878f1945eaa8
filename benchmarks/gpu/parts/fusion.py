"""How fast the product fuses: a checkpoint of 8 layers of the 8B shape, through vLLM's own weight reload."""

import time
from dataclasses import replace
from typing import Any

from lora_compose.benchmarks.gpu.engine import InProcessEngine
from lora_compose.benchmarks.gpu.models import LLAMA_8B, TINY, write_adapters, write_checkpoint
from lora_compose.benchmarks.gpu.parts.answers import MIXES, RANKS, timed_load_base
from lora_compose.benchmarks.gpu.run import CheckRun


def fusion(run: CheckRun) -> None:
    """A finding for the stack of four, and one for the restored base."""
    shape = TINY if run.on_cpu else replace(LLAMA_8B, layers=8)
    model, adapters = run.work / "fuse", run.work / "fuse-adapters"
    began = time.perf_counter()
    total = write_checkpoint(model, shape, run.device)
    write_adapters(adapters, shape, [16] * len(RANKS), run.device)
    run.say("written", bytes=total, seconds=round(time.perf_counter() - began, 1))
    options: dict[str, Any] = {} if run.on_cpu else {"gpu_memory_utilization": 0.5, "enforce_eager": True}
    engine = InProcessEngine(run, model, adapters, **options)
    run.say("start", ok=True, seconds=round(engine.start_seconds, 1))
    for name, weights in {"stack4": MIXES["stack4"], "plain": MIXES["base"]}.items():
        seconds = timed_load_base(run, engine, weights)
        rate = round(total / seconds / 1e9, 3)
        run.say(f"load_base:{name}", seconds=round(seconds, 2), gigabytes_per_second=rate)
