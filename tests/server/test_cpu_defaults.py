"""Threads and data type are chosen from the machine and the model, on machines and models made of files."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.server.config import EMBEDDED_BASE
from lora_compose.server.cpu_defaults import (
    Base,
    Cpu,
    choose,
    defaults_for,
    find_base,
    find_cpu,
    threads_of,
)

BF16, AMX, AVX2 = frozenset({"avx2", "avx512_bf16"}), frozenset({"amx_bf16"}), frozenset({"avx2"})
AVX512 = frozenset({"avx2", "avx512f", "avx512_vnni"})
REAL, TINY, UNKNOWN = Base(135_000_000), Base(800_000), Base(None)


@pytest.mark.parametrize(
    ("cpu", "base", "threads", "dtype"),
    [
        (Cpu(2, BF16), REAL, 2, "bfloat16"),
        (Cpu(8, AMX), REAL, 8, "bfloat16"),
        (Cpu(8, AVX2), REAL, 8, "float32"),
        (Cpu(8, AVX512), REAL, 8, "float32"),
        (Cpu(2, BF16), UNKNOWN, 2, "bfloat16"),
        (Cpu(2, BF16), TINY, 1, "float32"),
        (Cpu(8, BF16), TINY, 7, "float32"),
        (Cpu(1, BF16), TINY, 1, "float32"),
        (Cpu(1, AVX2), REAL, 1, "float32"),
        (Cpu(4, AMX), Base(135_000_000, quantized=True), 4, "float32"),
    ],
)
def test_the_machine_and_the_model_decide(cpu: Cpu, base: Base, threads: int, dtype: str) -> None:
    chosen = choose(cpu, base)
    assert (chosen.threads, chosen.dtype) == (threads, dtype)


def test_the_users_choice_wins_and_the_log_says_so() -> None:
    chosen = choose(Cpu(8, BF16), REAL, threads=3, dtype="float32")
    assert (chosen.threads, chosen.dtype) == (3, "float32")
    assert chosen.sentence() == (
        "CPU: 3 OpenMP threads (set by OMP_NUM_THREADS), float32 (set by --dtype). "
        "Change them with OMP_NUM_THREADS and --dtype"
    )


def test_the_log_gives_the_reasons() -> None:
    assert choose(Cpu(1, AMX), REAL).sentence() == (
        "CPU: 1 OpenMP thread (on 1 core), bfloat16 (the CPU has amx_bf16). "
        "Change them with OMP_NUM_THREADS and --dtype"
    )


def test_the_embedded_base_stays_in_float32_with_one_core_for_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_compose.server.cpu_defaults.find_cpu", lambda: Cpu(4, BF16))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    chosen = defaults_for(str(EMBEDDED_BASE))
    assert (chosen.threads, chosen.dtype) == (3, "float32")


@pytest.mark.parametrize(("text", "threads"), [("3", 3), ("4,2", 4), (" 2 ", 2), ("", None)])
def test_openmps_variable_may_be_a_list(text: str, threads: int | None) -> None:
    assert threads_of({"OMP_NUM_THREADS": text}) == threads


@pytest.mark.parametrize("text", ["many", "0", "-1", "1.5", "two,2"])
def test_another_value_of_openmps_variable_is_refused(text: str) -> None:
    with pytest.raises(LoraComposeError, match="OMP_NUM_THREADS is"):
        threads_of({"OMP_NUM_THREADS": text})


def test_a_model_is_measured_by_its_numbers_and_not_by_its_bytes(tmp_path: Path) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        save_file({"w": torch.zeros(1000, 1000, dtype=dtype)}, tmp_path / "model.safetensors")
        assert find_base(tmp_path).parameters == pytest.approx(1_000_000, rel=0.001)


def test_a_quantized_model_is_recognized(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "awq"}}))
    assert find_base(tmp_path).quantized


def test_a_model_on_the_hub_or_without_weights_is_unknown(tmp_path: Path) -> None:
    assert find_base(Path("org/model")) == find_base(tmp_path) == Base(None)


def machine(root: Path, files: dict[str, str], siblings: dict[int, str] | None = None) -> Path:
    topology = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    files = {
        "proc/cpuinfo": "processor\t: 0\nflags\t\t: fpu avx2 avx512_bf16\n\nprocessor\t: 1\nflags\t: fpu\n",
        "proc/self/cgroup": "0::/box/inner\n",
        **{topology.format(core): f"{text}\n" for core, text in (siblings or {}).items()},
        **files,
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture(autouse=True)
def four_hardware_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})


def test_hardware_threads_of_one_core_count_once(tmp_path: Path) -> None:
    assert find_cpu(machine(tmp_path, {})).cores == 4
    assert find_cpu(machine(tmp_path, {}, {0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"})).cores == 2


@pytest.mark.parametrize(
    ("quotas", "cores"),
    [
        ({"box/cpu.max": "max 100000\n"}, 4),
        ({"box/cpu.max": "250000 100000\n"}, 2),
        ({"box/cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "100000 100000\n", "box/inner/cpu.max": "300000 100000\n"}, 1),
    ],
)
def test_the_limits_of_containers_count(quotas: dict[str, str], cores: int, tmp_path: Path) -> None:
    files = {f"sys/fs/cgroup/{name}": text for name, text in quotas.items()}
    assert find_cpu(machine(tmp_path, files)).cores == cores


def test_the_limits_of_version_1_of_control_groups_count(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "4:cpu,cpuacct:/box\n3:memory:/box\n",
        "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "200000\n",
        "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    }
    assert find_cpu(machine(tmp_path, files)).cores == 2


@pytest.mark.parametrize(("isa", "has_bf16"), [("AVX2", False), ("avx512_core", False), ("ALL", True)])
def test_instructions_that_onednn_may_not_use_do_not_count(isa: str, has_bf16: bool, tmp_path: Path) -> None:
    found = find_cpu(machine(tmp_path, {}), {"ONEDNN_MAX_CPU_ISA": isa})
    assert ("avx512_bf16" in found.flags) == has_bf16
