"""The parts and the options of the GPU checks. No engine starts here."""

import ast
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from lora_compose.benchmarks.gpu import __main__ as checks
from lora_compose.benchmarks.gpu.parts.table import PACKAGE, PARTS, PLAN, CheckPart
from lora_compose.benchmarks.gpu.run import LINE_START, CheckRun, device_name

IMPORT_ONLY = "import lora_compose.benchmarks.gpu.__main__, sys; print({'vllm', 'torch'} & set(sys.modules))"


def a_run(tmp_path: Path) -> CheckRun:
    return CheckRun("small", "cpu", "a processor", tmp_path)


def test_the_parts_are_these_in_this_order() -> None:
    assert list(PARTS) == [
        *("env", "small", "graphs", "lifecycle", "kernels", "compiled", "pooled", "big", "fuse")
    ]


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_each_part_names_a_function_of_its_module(part: CheckPart) -> None:
    module, _, name = part.function.partition(":")
    found = find_spec(f"{PACKAGE}.{module}")
    assert found
    assert found.origin
    body = ast.parse(Path(found.origin).read_text()).body
    assert name in {node.name for node in body if isinstance(node, ast.FunctionDef)}


def test_a_gpu_gets_the_plan_by_default_and_a_cpu_every_part() -> None:
    assert checks.steps_of(checks.parse([])) == list(PLAN)
    assert {name for name, _ in PLAN} <= PARTS.keys()
    rehearsal = checks.steps_of(checks.parse(["--cpu", "--kernels", "pooled"]))
    assert rehearsal == [(name, "pooled") for name in PARTS]


def test_a_gpu_is_the_default() -> None:
    options = checks.parse([])
    assert not options.cpu
    assert not options.device_branch


def test_the_rehearsal_s_options() -> None:
    options = checks.parse(["--cpu", "--parts", "small,fuse", "--device-branch"])
    assert (options.cpu, options.device_branch, options.parts) == (True, True, ["small", "fuse"])


def test_an_unknown_part_is_refused_with_the_names_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refusal:
        checks.parse(["--parts", "small,huge"])
    assert refusal.value.code == 2
    assert "no part is called 'huge'. The parts are env, small, graphs" in capsys.readouterr().err


def test_the_process_that_starts_the_parts_imports_neither_vllm_nor_torch() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT_ONLY], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_finding_is_one_line_of_json_with_the_device(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_run(tmp_path).say("start", ok=True, where=tmp_path)
    line = capsys.readouterr().out
    assert line.startswith(LINE_START)
    assert json.loads(line) == {
        "part": "small",
        "check": "start",
        "device": "a processor",
        "kernels": "vllm",
        "ok": True,
        "where": str(tmp_path),
    }


def test_what_an_attempt_raises_is_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not a_run(tmp_path).attempt("prepare", lambda: next(iter(())))
    finding = json.loads(capsys.readouterr().out)
    assert (finding["ok"], finding["reason"]) == (False, "StopIteration: ")


def test_a_processor_has_a_name() -> None:
    assert device_name("cpu")


def test_no_time_left_is_a_finding_and_no_process_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--cpu", "--parts", "big", "--seconds", "0", "--work", str(tmp_path)]
    assert checks.main(arguments) == 1
    finding = json.loads(capsys.readouterr().out)
    assert (finding["part"], finding["ok"], finding["reason"]) == ("big", False, "no time left")


def test_a_part_that_ends_early_reports_its_exit_code_and_the_end_of_its_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "small.log"
    assert not checks.run_part(a_run(tmp_path), ["--no-such-option"], 60, log)
    finding = json.loads(capsys.readouterr().out)
    assert finding["reason"] == "exit 2"
    assert "unrecognized arguments: --no-such-option" in finding["tail"]
