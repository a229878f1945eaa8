import psutil
import torch

from lora_compose.server.engine.worker.kv_cache import _BytesOnDemand, zeros_on_demand

MIB = 1 << 20


def resident() -> int:
    memory: int = psutil.Process().memory_info().rss
    return memory


def test_bytes_are_zeros_and_take_memory_only_when_they_are_written() -> None:
    before = resident()
    cache = zeros_on_demand(512 * MIB)
    assert resident() - before < 64 * MIB
    cache[: 256 * MIB] = 7
    assert resident() - before > 200 * MIB
    assert (int(cache[0]), int(cache[-1]), cache.numel()) == (7, 0, 512 * MIB)


def test_the_memory_comes_back_with_the_last_view() -> None:
    cache = zeros_on_demand(256 * MIB)
    cache[:] = 1
    view, used = cache.view(torch.float32)[5:], resident()
    del cache
    assert float(view[0]) != 0
    del view
    assert used - resident() > 200 * MIB


def test_only_the_bytes_of_the_cache_are_taken_on_demand() -> None:
    with _BytesOnDemand():
        floats, cache = torch.zeros(4), torch.zeros(4096, dtype=torch.int8, device=torch.device("cpu"))
    assert (floats.dtype, cache.dtype) == (torch.float32, torch.int8)
    assert not floats.any()
    assert not cache.any()
