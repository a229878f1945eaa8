"""The cause of an engine process that does not start reaches the server's process, in one line."""

import inspect
import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError, field_validator

from lora_compose.server.engine.start_failure import (
    LONGEST,
    MESSAGES,
    PLACE,
    StartFailures,
    cause_of_end,
    one_line,
    sentence_of,
    start_failures,
)

FAILS = """
import logging, sys
from lora_compose.server.engine.start_failure import report_start_failures
report_start_failures()
report_start_failures()
logger = logging.getLogger("vllm.v1.engine.core")
logger.addHandler(logging.StreamHandler())
logger.setLevel(sys.argv[1])
logger.error("something else")
try:
    raise AssertionError("a weight has\\n  another shape")
except AssertionError:
    logger.exception("EngineCore failed to start.")
print("the end", file=sys.stderr)
"""


def fail(level: str, environment: dict[str, str]) -> str:
    command = [sys.executable, "-c", FAILS, level]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | environment
    ).stderr


def test_the_process_reports_its_exception_and_prints_no_traceback() -> None:
    with start_failures() as failures:
        assert failures.cause() is None
        assert fail("WARNING", {}) == "something else\n"
        assert failures.cause() == "a weight has another shape"
    assert PLACE not in os.environ


def test_the_first_report_stays() -> None:
    with start_failures() as failures:
        failures.file.write_text(json.dumps({"cause": "a worker's"}))
        fail("WARNING", {})
        assert failures.cause() == "a worker's"


def test_with_debug_the_traceback_is_printed_too() -> None:
    with start_failures() as failures:
        printed = fail("DEBUG", {})
        assert failures.cause() is not None
    assert "Traceback" in printed
    assert printed.endswith("the end\n")


def test_where_nothing_can_be_reported_the_traceback_is_printed(tmp_path: Path) -> None:
    for environment in ({}, {PLACE: str(tmp_path / "gone" / "failure.json")}):
        assert "Traceback" in fail("WARNING", environment)


class Checked(BaseModel):
    value: int

    @field_validator("value")
    @classmethod
    def refuse(cls, value: int) -> int:
        raise ValueError("the architecture is not known")


def test_every_exception_is_one_line() -> None:
    with pytest.raises(ValidationError) as raised:
        Checked(value=1)
    assert one_line(raised.value) == "Value error, the architecture is not known"
    assert one_line(KeyError("layers.0")) == "KeyError 'layers.0'"
    assert one_line(AssertionError()) == "AssertionError"
    assert len(one_line(ValueError("x" * 10_000))) == LONGEST + 1


def end_with(code: int) -> None:
    if code < 0 and -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    if code < 0:
        os.kill(os.getpid(), -code)
    os._exit(code)


@pytest.mark.parametrize(
    ("code", "said"),
    [(-9, "when memory runs out"), (-7, "--shm-size=1g"), (-11, "SIGSEGV"), (3, "code 3. --log-level debug")],
)
async def test_a_process_that_reports_nothing_is_judged_by_its_end(
    tmp_path: Path, code: int, said: str
) -> None:
    process = multiprocessing.get_context("spawn").Process(target=end_with, args=(code,))
    process.start()
    cause = await cause_of_end(StartFailures(tmp_path / "none.json"), [process])
    assert cause == sentence_of(code)
    assert said in cause


async def test_without_a_process_the_exception_is_the_server_s_own(tmp_path: Path) -> None:
    assert await cause_of_end(StartFailures(tmp_path / "none.json"), []) is None


@pytest.mark.parametrize(("module", "message"), MESSAGES.items())
def test_vllm_still_says_so(module: str, message: str) -> None:
    source = inspect.getsource(import_module(module))
    assert f'logger.exception("{message}")' in source
    assert logging.getLogger(module).name == module
