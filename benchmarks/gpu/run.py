"""What a check has to know about its run, and how it reports: one line of JSON for each finding."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lora_compose.benchmarks.machine import cpu_model
from lora_compose.server.engine.kernel_choice import LoraKernels

Device = Literal["cuda", "cpu"]
ENOUGH_MEMORY = 16 << 30
LINE_START = '{"part"'
"""The start of a finding on standard output. vLLM prints other lines there."""


@dataclass(frozen=True)
class CheckRun:
    """One part on one device. `work` is for models and adapters; the part may leave them there."""

    part: str
    device: Device
    device_name: str
    work: Path
    eager: bool = False
    """Whether the part `big` runs without CUDA graphs, for a machine where their capture fails."""
    kernels: LoraKernels = "vllm"
    """The LoRA kernels on a GPU: vLLM's or ours."""

    @property
    def on_cpu(self) -> bool:
        """Whether this is a rehearsal: small shapes, and no figure of it means anything."""
        return self.device == "cpu"

    def say(self, check: str, **values: Any) -> None:
        """Print one finding."""
        finding = {"part": self.part, "check": check, "device": self.device_name, "kernels": self.kernels}
        finding |= values
        sys.stdout.write(json.dumps(finding, default=str) + "\n")
        sys.stdout.flush()

    def attempt(self, check: str, call: Callable[[], object]) -> bool:
        """Whether `call` succeeds. What it raises becomes a finding, and the part goes on."""
        try:
            call()
        except Exception as error:  # noqa: BLE001  a fault of the product is a finding here
            self.say(check, ok=False, reason=f"{type(error).__name__}: {error}"[:300])
            return False
        return True


def device_name(device: Device) -> str:
    """The GPU's or the processor's name."""
    if device == "cpu":
        return cpu_model()
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown GPU"
    return done.stdout.partition("\n")[0].strip()


def work_directory() -> Path:
    """A directory in memory if 16 GiB are free there, else on the disk."""
    memory = Path("/dev/shm")
    has_room = memory.is_dir() and shutil.disk_usage(memory).free > ENOUGH_MEMORY
    return (memory if has_room else Path(tempfile.gettempdir())) / "lora-compose-gpu"
