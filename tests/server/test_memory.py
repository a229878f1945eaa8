"""The KV cache is sized from the memory that is free, on machines made of files."""

import json
from pathlib import Path

import pytest

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.server.config import EMBEDDED_BASE
from lora_compose.server.memory import (
    GIB,
    MIB,
    MemoryPlan,
    free_memory,
    kv_bytes_a_token,
    plan_in,
    weight_bytes,
)


def machine(root: Path, available: int, group: str = "0::/") -> Path:
    """A /proc and /sys with one memory node, which holds every core."""
    files = {
        "proc/meminfo": f"MemTotal: 99999999 kB\nMemAvailable: {available // 1024} kB\n",
        "proc/self/cgroup": f"{group}\n",
    }
    node = f"Node 0 MemFree: {available // 2048} kB\nNode 0 Inactive(file): {available // 2048} kB\n"
    files |= {
        "sys/devices/system/node/node0/cpulist": "0-1023\n",
        "sys/devices/system/node/node0/meminfo": node,
    }
    write(root, files)
    return root


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_free_memory_is_what_the_machine_has(tmp_path: Path) -> None:
    assert free_memory(machine(tmp_path, 6 * GIB)) == 6 * GIB


def test_a_memory_node_with_less_counts(tmp_path: Path) -> None:
    machine(tmp_path, 6 * GIB)
    node = {"cpulist": "0-1023\n", "meminfo": "Node 1 MemFree: 1048576 kB\n"}
    write(tmp_path / "sys/devices/system/node/node1", node)
    assert free_memory(tmp_path) == GIB


def test_a_memory_node_of_other_cores_does_not_count(tmp_path: Path) -> None:
    machine(tmp_path, 6 * GIB)
    node = {"cpulist": "5000-5001\n", "meminfo": "Node 1 MemFree: 1048576 kB\n"}
    write(tmp_path / "sys/devices/system/node/node1", node)
    assert free_memory(tmp_path) == 6 * GIB


@pytest.mark.parametrize(
    ("line", "files"),
    [
        (
            "0::/kubepods/pod1",
            {"kubepods/memory.max": f"{3 * GIB}", "kubepods/memory.current": f"{GIB}"},
        ),
        ("0::/../../outside", {"memory.max": f"{3 * GIB}", "memory.current": f"{GIB}"}),
        (
            "4:memory:/docker/1",
            {
                "memory/docker/1/memory.limit_in_bytes": f"{3 * GIB}",
                "memory/docker/1/memory.usage_in_bytes": f"{GIB}",
            },
        ),
    ],
    ids=["a parent group", "a container's own view", "cgroup v1"],
)
def test_the_limit_of_a_control_group_counts(tmp_path: Path, line: str, files: dict[str, str]) -> None:
    machine(tmp_path, 6 * GIB, line)
    write(tmp_path / "sys/fs/cgroup", files)
    assert free_memory(tmp_path) == 2 * GIB


def test_file_cache_in_a_control_group_is_free(tmp_path: Path) -> None:
    machine(tmp_path, 6 * GIB)
    limits = {"memory.max": f"{3 * GIB}", "memory.current": f"{2 * GIB}"}
    write(tmp_path / "sys/fs/cgroup", {**limits, "memory.stat": f"inactive_file {GIB}\n"})
    assert free_memory(tmp_path) == 2 * GIB


def embedded(free: int, max_model_len: int | None = None) -> MemoryPlan:
    return plan_in(free, EMBEDDED_BASE, "float32", max_model_len, 256)


def test_the_embedded_base_takes_a_gibibyte_where_there_is_enough() -> None:
    assert kv_bytes_a_token(EMBEDDED_BASE, 4) == 2048
    assert embedded(20 * GIB).kv_cache == GIB


def test_it_takes_half_of_what_is_left_where_there_is_less() -> None:
    plan = embedded(5 * GIB // 2)
    assert plan.kv_cache_needed == GIB
    assert 0 <= GIB // 2 - plan.kv_cache < 8 * MIB


def test_too_little_memory_is_refused_with_the_figures() -> None:
    with pytest.raises(LoraComposeError) as refusal:
        embedded(3 * GIB // 2)
    assert refusal.value.code == "not_enough_memory"
    assert "1.5 GiB of memory are free" in refusal.value.message
    assert "--max-model-len" in refusal.value.message


def test_weights_are_counted_in_the_dtype_that_is_served(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}}).encode()
    content = len(header).to_bytes(8, "little") + header + bytes(8)
    (tmp_path / "model.safetensors").write_bytes(content)
    assert weight_bytes(tmp_path, 4) == 2 * len(content)
    assert weight_bytes(tmp_path, None) == len(content)


def test_quantized_weights_stay_as_they_are_stored(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "I8", "shape": [8], "data_offsets": [0, 8]}}).encode()
    content = len(header).to_bytes(8, "little") + header + bytes(8)
    (tmp_path / "model.safetensors").write_bytes(content)
    assert weight_bytes(tmp_path, 4) == len(content)


@pytest.mark.parametrize("content", [b"", b"1234567", (200).to_bytes(8, "little") + b'{"w": {"dt', bytes(8)])
def test_a_damaged_file_counts_with_its_size(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    assert weight_bytes(tmp_path, 4) == len(content)


def test_a_model_that_is_not_here_yet_gets_a_quarter() -> None:
    assert plan_in(8 * GIB, Path("org/model"), "float32", None, 256).kv_cache == 2 * GIB
