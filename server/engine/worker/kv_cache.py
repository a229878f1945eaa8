"""The memory of the KV cache on a CPU: the system gives each page when it is first written.

vLLM fills the cache with zeros when it starts, which takes all of its memory, and a second for each 2 GiB.
Fresh pages of the system are zeros already. A block that is never used takes no memory.
"""

import mmap
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from typing_extensions import override
from vllm.v1.worker.utils import allocate_kv_cache


def allocate_on_demand(*args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
    """vLLM's `allocate_kv_cache`, whose bytes are `zeros_on_demand`."""
    with _BytesOnDemand():
        views: dict[str, torch.Tensor] = allocate_kv_cache(*args, **kwargs)
    return views


def zeros_on_demand(size: int) -> torch.Tensor:
    """`size` zeros, int8. The memory is given back when the last tensor of it is freed."""
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(pages, dtype=torch.int8)


class _BytesOnDemand(TorchFunctionMode):
    """Makes `torch.zeros(size, dtype=torch.int8)` return `zeros_on_demand(size)`."""

    @override
    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.zeros and kwargs.get("dtype") is torch.int8 and isinstance(args[0], int):
            return zeros_on_demand(args[0])
        return func(*args, **kwargs)
