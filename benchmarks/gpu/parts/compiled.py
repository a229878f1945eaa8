"""Our LoRA kernels, compiled for three generations of GPUs. It needs no GPU, and runs nothing.

A finding has a kernel's registers for each thread, the bytes that it spills to memory, its shared memory, and
the instructions that multiply and copy.
"""

import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from lora_compose.benchmarks.gpu.run import CheckRun
from lora_compose.server.engine.device.batch_table import LARGE_TILE, SMALL_TILE
from lora_compose.server.engine.device.deltas import LARGE, SMALL, SPLITS, Blocks
from lora_compose.server.engine.device.kernels import expand, shrink
from lora_compose.server.engine.device.layer_pool import BLOCK_N

CAPABILITIES = (80, 90, 100)
FIRST_WITH_PDL = 90
MAX_RANKS, SLICES = 128, 3
FLOATS = ("h", "weights")
FACTORS = ("x", "y", "a", "b")
ALIGNED = (*FACTORS, *FLOATS, "x_stride", "y_stride", "a_stride", "width", "d_in", "h_rows")
"""Arguments that Triton finds to be multiples of 16 in all layers of an 8B Llama."""
INSTRUCTIONS = ("mma.sync", "wgmma", "tcgen05.mma", "cp.async", "griddepcontrol")


@dataclass(frozen=True)
class CompiledKernel:
    """What the compiler says of one kernel."""

    registers: int
    spilled_bytes: int
    shared_bytes: int
    instructions: tuple[str, ...]


def compiled(run: CheckRun) -> None:
    """A finding for each kernel, size of batch and generation. No kernel may spill."""
    run = replace(run, kernels="pooled")
    for capability in CAPABILITIES:
        for batch, blocks in {"small": SMALL, "large": LARGE}.items():
            for kernel in (shrink, expand):
                found = compile_kernel(kernel, blocks, capability, is_small=batch == "small")
                run.say(
                    f"compiled:{kernel.__name__}",
                    batch=batch,
                    target=f"sm_{capability}",
                    ok=found.spilled_bytes == 0,
                    **vars(found),
                )


def compile_kernel(
    kernel: Any, blocks: Blocks, capability: int, *, is_small: bool, dtype: str = "bf16"
) -> CompiledKernel:
    """Compile for a generation of GPUs, with the constants that an 8B Llama's qkv has."""
    constants = _constants(kernel, blocks, is_small=is_small, pdl=capability >= FIRST_WITH_PDL)
    names = kernel.arg_names
    source = ASTSource(
        fn=kernel,
        signature={name: _type_of(name, constants, dtype) for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(names.index(n),): [["tt.divisibility", 16]] for n in ALIGNED if n in names},
    )
    options = {
        "num_warps": blocks.shrink_warps if kernel is shrink else blocks.expand_warps,
        "num_stages": blocks.stages,
    }
    built = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    registers, stack, local = _resources(built.asm["cubin"])
    found = tuple(name for name in INSTRUCTIONS if name in built.asm["ptx"])
    return CompiledKernel(registers, stack + local, built.metadata.shared, found)


def _constants(kernel: Any, blocks: Blocks, *, is_small: bool, pdl: bool) -> dict[str, object]:
    height = SMALL_TILE if is_small else LARGE_TILE
    both: dict[str, object] = {
        "MAX_RANKS": MAX_RANKS,
        "SLICES": SLICES,
        "BLOCK_M": height,
        "WIDEN": False,
        "PDL": pdl,
    }
    if kernel is shrink:
        once = 1 if is_small else SPLITS
        sizes = {"BLOCK_R": blocks.shrink_ranks, "BLOCK_K": blocks.shrink_k}
        return both | sizes | {"SPLITS": SPLITS, "SPLITS_AT_ONCE": once}
    return both | {"SPLITS": SPLITS if is_small else 1, "BLOCK_N": BLOCK_N, "BLOCK_R": blocks.expand_ranks}


def _type_of(name: str, constants: dict[str, object], dtype: str) -> str:
    if name in constants:
        return "constexpr"
    if name in FACTORS:
        return f"*{dtype}"
    if name in FLOATS:
        return "*fp32"
    return (
        "i32" if name in ("x_stride", "a_stride", "y_stride", "h_rows", "d_in", "width", "lanes") else "*i32"
    )


def _resources(cubin: bytes) -> tuple[int, int, int]:
    """Registers, and bytes of the stack and of local memory, for each thread."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with TemporaryDirectory() as directory:
        file = Path(directory) / "kernel.cubin"
        file.write_bytes(cubin)
        shown = subprocess.run(
            [tool, "--dump-resource-usage", file], capture_output=True, text=True, check=True
        ).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", shown)
    assert found is not None, shown
    registers, stack, local = map(int, found.groups())
    return registers, stack, local
