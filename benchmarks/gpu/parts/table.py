"""The parts, in the order they run, with the function that runs each and the seconds it may take."""

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

from lora_compose.benchmarks.gpu.run import CheckRun
from lora_compose.server.engine.kernel_choice import LoraKernels

PACKAGE = "lora_compose.benchmarks.gpu.parts"
CPU_FACTOR = 8
"""A CPU gets that many times the seconds."""


@dataclass(frozen=True)
class CheckPart:
    """`function` is `module:name` in this package. Its module is imported only in the part's own process."""

    name: str
    seconds: float
    function: str
    about: str

    def load(self) -> Callable[[CheckRun], None]:
        """The function. Imports vLLM."""
        found: Callable[[CheckRun], None] = pkgutil.resolve_name(f"{PACKAGE}.{self.function}")
        return found


PARTS = {
    part.name: part
    for part in (
        CheckPart("env", 90, "versions:versions", "versions, and one compiled kernel of vLLM"),
        CheckPart(
            "small", 150, "answers:eager", "right answers of a small model, before, while and after fusing"
        ),
        CheckPart("graphs", 150, "answers:under_graphs", "the same under CUDA graphs"),
        CheckPart(
            "lifecycle",
            120,
            "lifecycle:lifecycle",
            "eviction, hot load, fusing, a failed fusion, dummy batches",
        ),
        CheckPart(
            "kernels", 90, "kernels:kernels", "LoRA kernels of an 8B layer, with weights for each request"
        ),
        CheckPart(
            "compiled", 120, "compiled:compiled", "our LoRA kernels compiled for sm_80, sm_90 and sm_100"
        ),
        CheckPart(
            "pooled", 90, "pooled:pooled", "our LoRA kernels alone: right sums, and times of an 8B layer"
        ),
        CheckPart("big", 240, "speed:speed", "speed and hot loading on an 8B shape"),
        CheckPart("fuse", 120, "fusion:fusion", "fusing into 8 layers of an 8B shape, by bytes"),
    )
}

Step = tuple[str, LoraKernels]
PLAN: tuple[Step, ...] = (
    ("env", "vllm"),
    ("pooled", "pooled"),
    ("graphs", "vllm"),
    ("lifecycle", "pooled"),
    ("big", "pooled"),
    ("big", "vllm"),
    ("graphs", "pooled"),
    ("lifecycle", "vllm"),
    ("kernels", "vllm"),
    ("fuse", "vllm"),
)
"""What runs on a GPU without `--parts`: first what has never run on one, then the comparison."""
