"""The LoRA managers for GPUs on a real engine, which runs on this CPU: both of them, each in a process."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

COMMAND = (sys.executable, "-m", "lora_compose.benchmarks.gpu", "--cpu", "--device-branch")
CHECKS = {
    "plain",
    "stacks",
    "hot load",
    "a fusion failed in the middle",
    "restored after a failure",
    "while fused",
    "while fused, others",
    "graph while fused:{}",
    "graph while fused:{0: 0.7, 1: 0.4}",
    "dummy batches",
    "after dummy batches",
    "restored:1",
    "after restoring",
    "meter",
    "end",
}


@pytest.mark.parametrize("kernels", ["vllm", "pooled"])
def test_adapters_and_the_base_go_through_their_whole_life(kernels: str, tmp_path: Path) -> None:
    options = ("--parts", "lifecycle", "--kernels", kernels, "--work", str(tmp_path))
    done = subprocess.run([*COMMAND, *options], capture_output=True, text=True)
    findings: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    wrong = [finding for finding in findings if not finding["ok"]]
    assert not wrong
    expected = CHECKS | ({"1000 moves of a slider"} if kernels == "pooled" else set())
    assert expected <= {finding["check"] for finding in findings}
