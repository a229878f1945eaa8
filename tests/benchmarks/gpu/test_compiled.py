"""Our LoRA kernels, compiled for GPUs that this machine lacks."""

import pytest

from lora_compose.benchmarks.gpu.parts.compiled import CAPABILITIES, compile_kernel
from lora_compose.server.engine.device.deltas import LARGE, SMALL
from lora_compose.server.engine.device.kernels import expand, shrink

SHARED_MEMORY = {80: 163 << 10, 90: 227 << 10, 100: 227 << 10}
TENSOR_CORES = {"mma.sync", "wgmma", "tcgen05.mma"}


@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION:UserWarning")
@pytest.mark.parametrize("is_small", [True, False], ids=["small", "large"])
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_no_kernel_spills_and_each_uses_tensor_cores(capability: int, is_small: bool) -> None:
    for kernel in (shrink, expand):
        found = compile_kernel(kernel, SMALL if is_small else LARGE, capability, is_small=is_small)
        assert found.spilled_bytes == 0
        assert found.registers <= 255
        assert found.shared_bytes <= SHARED_MEMORY[capability]
        assert TENSOR_CORES & {*found.instructions}
        assert ("griddepcontrol" in found.instructions) == (capability >= 90)
