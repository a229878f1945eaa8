"""Starts that a signal or a fault ends: one line, an exit code, and no process that is left."""

import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_compose.server.client.process import COMMAND, free_port
from lora_compose.server.config import EMBEDDED_BASE

PATIENCE = 180.0


def start(home: Path, *options: str) -> "subprocess.Popen[str]":
    words = [COMMAND, "serve", "--port", str(free_port()), "--data-dir", str(home / "data"), *options]
    return subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def engine_of(server: "subprocess.Popen[str]") -> psutil.Process:
    """The engine's process, as soon as there is one."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for child in psutil.Process(server.pid).children():
            for forked in child.children():
                return forked
        time.sleep(0.1)
    raise AssertionError("there is no engine")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("seconds", [0.1, 0.4, 1.0, 2.5])
def test_a_signal_ends_a_start_with_one_line_and_code_0(
    tmp_path: Path, number: signal.Signals, seconds: float
) -> None:
    server = start(tmp_path)
    time.sleep(seconds)
    server.send_signal(number)
    output, errors = server.communicate(timeout=PATIENCE)
    lines = [line for line in errors.splitlines() if " INFO " not in line or "stopped" in line]
    told = [line for line in lines if "there are no API keys" not in line]
    assert (server.returncode, output, len(told)) == (0, "", 1), errors
    assert told[0].endswith("stopped")


def test_weights_of_another_shape_are_one_line_with_the_cause(tmp_path: Path) -> None:
    model = shutil.copytree(EMBEDDED_BASE, tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    name = next(name for name in weights if "q_proj" in name)
    weights[name] = torch.zeros(weights[name].shape[0] // 2, weights[name].shape[1])
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    server = start(tmp_path, "--model", str(model))
    _, errors = server.communicate(timeout=PATIENCE)
    *others, last = errors.splitlines()
    assert server.returncode == 1
    assert last.startswith("error: The engine could not be started: ")
    assert "root cause" not in last
    assert [line for line in others if " INFO " not in line and "no API keys" not in line] == []


def test_an_engine_that_is_killed_while_it_loads_is_one_line_about_memory(tmp_path: Path) -> None:
    server = start(tmp_path)
    engine = engine_of(server)
    time.sleep(1)
    engine.kill()
    _, errors = server.communicate(timeout=PATIENCE)
    *others, last = errors.splitlines()
    assert (server.returncode, "was killed while it loaded" in last) == (1, True), errors
    assert [line for line in others if " INFO " not in line and "no API keys" not in line] == []
    assert not engine.is_running()
