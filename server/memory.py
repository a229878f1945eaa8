"""How much memory a server on a CPU may take, and how much of it becomes KV cache.

vLLM's own default on CPUs is 92 % of all memory, counted when it starts: it then fails beside other programs.
Here the KV cache is sized from the memory that is free now. GPUs keep vLLM's default.
No vLLM and no torch in here, so that `doctor` can do the same sum.
"""

import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_compose.adapters.errors import CommandCode, LoraComposeError

GIB = 1 << 30
MIB = 1 << 20
PROCESS_BYTES = 3 * GIB // 2
"""What the engine, the HTTP server and their adapters take beside weights and KV cache. Measured: 1.2 GiB."""
MAX_NUM_SEQS = 256
"""vLLM's default on a CPU."""
SPARE_SHARE = 0.5
"""The share of the memory left after weights and processes that the KV cache may take."""
MIN_KV_CACHE = 256 * MIB
UNKNOWN_MODEL_SHARE = 0.25
"""The share for the KV cache where the model's files are not here yet."""
DTYPE_BYTES = {"float32": 4, "float": 4, "float16": 2, "half": 2, "bfloat16": 2}
SAFETENSORS_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I8": 1, "U8": 1, "F8_E4M3": 1, "F8_E5M2": 1}
ROOT = Path("/")


@dataclass(frozen=True)
class MemoryPlan:
    """All in bytes. `kv_cache_needed` is what the longest batch that vLLM admits would use."""

    free: int
    weights: int | None
    """None where the model's files are not here yet."""
    kv_cache: int
    kv_cache_needed: int | None

    def sentence(self) -> str:
        """One line for the log."""
        weights = "unknown" if self.weights is None else _gib(self.weights)
        return (
            f"KV cache: {_gib(self.kv_cache)} of {_gib(self.free)} free memory "
            f"(weights: {weights}). Change it with --kv-cache-memory-bytes"
        )


def plan_kv_cache(
    model: str, dtype: str = "float32", max_model_len: int | None = None, max_num_seqs: int = MAX_NUM_SEQS
) -> MemoryPlan:
    """`plan_in` the memory that is free now, for a directory or a Hub id. The defaults are `serve`'s."""
    return plan_in(free_memory(), Path(model), dtype, max_model_len, max_num_seqs)


def plan_in(
    free: int, directory: Path, dtype: str, max_model_len: int | None, max_num_seqs: int
) -> MemoryPlan:
    """The KV cache for a model in `free` bytes.

    It is what the longest batch needs, at most half of what weights and processes leave.
    Raises LoraComposeError `not_enough_memory`, with the figures, if that is less than one sequence needs.
    """
    if not directory.is_dir():
        return MemoryPlan(free, None, max(MIN_KV_CACHE, int(free * UNKNOWN_MODEL_SHARE)), None)
    weights = weight_bytes(directory, DTYPE_BYTES.get(dtype))
    spare = max(0, free - weights - PROCESS_BYTES)
    share = int(spare * SPARE_SHARE)
    a_token = kv_bytes_a_token(directory, DTYPE_BYTES.get(dtype))
    longest = max_model_len or _text_config(directory).get("max_position_embeddings")
    needed = None if a_token is None or longest is None else a_token * longest * max_num_seqs
    least = MIN_KV_CACHE // 4 if needed is None else max(needed // max_num_seqs, MIN_KV_CACHE // 4)
    if share < least:
        raise not_enough(free, weights, least)
    chosen = share if needed is None else min(max(needed, MIN_KV_CACHE), share)
    return MemoryPlan(free, weights, chosen, needed)


def not_enough(free: int, weights: int, kv_cache: int) -> LoraComposeError:
    """The refusal to start in too little memory."""
    wanted = weights + PROCESS_BYTES + kv_cache
    return LoraComposeError(
        CommandCode.NOT_ENOUGH_MEMORY,
        f"{_gib(free)} of memory are free, and this server needs {_gib(wanted)}: {_gib(weights)} for the "
        f"weights, {_gib(PROCESS_BYTES)} for its processes, {_gib(kv_cache)} for the KV cache. "
        "End other programs, or choose a smaller --max-model-len or model.",
    )


def free_memory(root: Path = ROOT) -> int:
    """Bytes that this process may still take: the least of its memory nodes' and its control groups'.

    `root` is where /proc and /sys are found."""
    return min([_available_on_nodes(root), *_left_in_groups(root)])


def _available_on_nodes(root: Path) -> int:
    """vLLM binds to the memory of one node that its cores belong to: the one with the least is counted."""
    nodes = sorted((root / "sys/devices/system/node").glob("node[0-9]*"))
    cores, in_all = os.sched_getaffinity(0), _available_in_all(root)
    return min([in_all, *(_available_on_node(node) for node in nodes if cores & _cores_of(node))])


def _available_in_all(root: Path) -> int:
    lines = (root / "proc/meminfo").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["MemAvailable"].split()[0]) * 1024


def _available_on_node(node: Path) -> int:
    """Free memory and the caches that the kernel gives back, as vLLM counts it."""
    fields = {}
    for line in (node / "meminfo").read_text().splitlines():
        parts = line.split()
        fields[parts[2].rstrip(":")] = int(parts[3]) * 1024
    names = ("MemFree", "Active(file)", "Inactive(file)", "SReclaimable")
    return sum(fields.get(name, 0) for name in names)


def _cores_of(node: Path) -> set[int]:
    """The cores of a node. The kernel writes them as a list such as `0-3,8`."""
    cores = set[int]()
    for part in (node / "cpulist").read_text().strip().split(","):
        first, _, last = part.partition("-")
        if first:
            cores |= set(range(int(first), int(last or first) + 1))
    return cores


def _left_in_groups(root: Path) -> Iterator[int]:
    """What each control group that this process is in may still take, up to the root. cgroup v2 and v1."""
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            yield from _left_in(root / "sys/fs/cgroup", path, "memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes")
            yield from _left_in(root / "sys/fs/cgroup/memory", path, *files)


def _left_in(tree: Path, path: str, limit_file: str, used_file: str) -> Iterator[int]:
    for place in groups(tree, path):
        try:
            limit, used = (place / limit_file).read_text().strip(), int((place / used_file).read_text())
        except (OSError, ValueError):
            continue
        if limit != "max":
            yield max(0, int(limit) - used + _reclaimable_in(place))


def groups(tree: Path, path: str) -> list[Path]:
    """The directories of a control group and of each group around it, up to the top of `tree`.

    In a container the path may be the host's, and then the container's own group is at the top."""
    group = tree / path.strip("/")
    return [group, *(parent for parent in group.parents if parent.is_relative_to(tree))]


def _reclaimable_in(group: Path) -> int:
    """Bytes of file cache, which count as used in the group and which the kernel gives back."""
    try:
        lines = (group / "memory.stat").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.split()[0] in {"inactive_file"})
    except (OSError, ValueError, IndexError):
        return 0


def weight_bytes(directory: Path, bytes_each: int | None) -> int:
    """What the checkpoint takes in memory, each number in `bytes_each` bytes (None: as stored).

    Quantized numbers, of one byte each, stay as they are stored."""
    total = 0
    for path in directory.glob("*.safetensors"):
        size = path.stat().st_size
        stored = _stored_bytes_each(path)
        if bytes_each is not None and stored is not None and stored > 1:
            size = size * bytes_each // stored
        total += size
    return total


def parameter_count(directory: Path) -> int:
    """The numbers in the checkpoint; about half of them where they are of four bits, two to a byte."""
    sizes = ((path.stat().st_size, _stored_bytes_each(path)) for path in directory.glob("*.safetensors"))
    return sum(size // (stored or 2) for size, stored in sizes)


def _stored_bytes_each(path: Path) -> int | None:
    """Bytes of the numbers in a safetensors file: those of its first tensor's dtype."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, 100 * MIB)))
        dtypes = (entry["dtype"] for name, entry in header.items() if name != "__metadata__")
        return SAFETENSORS_BYTES.get(next(dtypes, ""))
    except (OSError, ValueError, struct.error, AttributeError, TypeError, KeyError):
        return None  # vLLM and doctor's check of the weights say what is wrong with the file


def kv_bytes_a_token(directory: Path, bytes_each: int | None) -> int | None:
    """2 (K and V) × layers × key-value heads × head size × bytes; None for a config that does not say."""
    config = _text_config(directory)
    try:
        heads = config.get("num_key_value_heads") or config["num_attention_heads"]
        head_size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        stored = DTYPE_BYTES.get(str(config.get("dtype") or config.get("torch_dtype")), 2)
        return 2 * int(config["num_hidden_layers"]) * int(heads) * int(head_size) * (bytes_each or stored)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None


def _text_config(directory: Path) -> dict[str, Any]:
    """config.json, or the language model's part of it. Empty where it cannot be read: vLLM says why."""
    try:
        config = json.loads((directory / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    inner = config.get("text_config") if isinstance(config, dict) else None
    return inner if isinstance(inner, dict) else config if isinstance(config, dict) else {}


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"
