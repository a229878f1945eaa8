"""The options of the checks over HTTP, and the command that they start. No server starts here."""

import json
import subprocess
from pathlib import Path

import pytest

from lora_compose.benchmarks.gpu.http import __main__ as checks
from lora_compose.benchmarks.gpu.http.product import ProductRun, ensure_command
from lora_compose.benchmarks.gpu.run import CheckRun, Device


def product(tmp_path: Path, device: Device = "cuda") -> ProductRun:
    run = CheckRun("demo", device, "a device", tmp_path)
    return ProductRun(run, tmp_path, arms="base", concurrency="1", bench_seconds=1)


def test_the_checks_are_named_one_after_another() -> None:
    options = checks.parse(["demo", "big", "--cpu", "--bench-seconds", "30"])
    assert (options.checks, options.cpu, options.bench_seconds) == (["demo", "big"], True, 30)


def test_an_unknown_check_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refusal:
        checks.parse(["huge"])
    assert refusal.value.code == 2
    assert "invalid choice: 'huge'" in capsys.readouterr().err


def test_a_gpu_gets_graphs_and_a_share_of_its_memory_and_a_cpu_neither(tmp_path: Path) -> None:
    options = product(tmp_path).engine_options(memory=0.5)
    assert json.loads(options[options.index("--compilation-config") + 1])["mode"] == 0
    assert options[options.index("--gpu-memory-utilization") + 1] == "0.5"
    assert product(tmp_path, "cpu").engine_options(memory=0.5) == []


def test_where_the_product_is_not_installed_its_command_is_written_and_works(tmp_path: Path) -> None:
    command = ensure_command(tmp_path / "lora-compose")
    done = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
    assert "serve" in done.stdout


def test_a_command_with_a_main_guard_is_left_alone(tmp_path: Path) -> None:
    command = tmp_path / "lora-compose"
    command.write_text("if __name__ == '__main__': ...\n")
    assert ensure_command(command).read_text() == "if __name__ == '__main__': ...\n"


def test_what_a_check_raises_is_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(_: ProductRun) -> None:
        raise RuntimeError("the engine is gone")

    assert not checks.run_check(product(tmp_path), refused)
    finding = json.loads(capsys.readouterr().out)
    assert (finding["check"], finding["ok"], finding["device"]) == ("end", False, "a device")
    assert "RuntimeError: the engine is gone" in finding["error"]
