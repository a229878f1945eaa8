"""Reports to the server's process why an engine process did not start.

vLLM logs the exception in the process that fails, and reports to its parent only that the process failed. Our
plugin, which vLLM loads in every process, hands the exception on in a file. Imports no vLLM.
"""

import asyncio
import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from typing_extensions import override

PLACE = "LORA_COMPOSE_START_FAILURE"
"""The variable that names the file to the engine's processes. Only this project sets it."""
MESSAGES = {
    "vllm.v1.engine.core": "EngineCore failed to start.",
    "vllm.v1.executor.multiproc_executor": "WorkerProc failed to start.",
}
"""vLLM's loggers, and what each says with the exception that kept its process from starting."""
LONGEST = 500
END_SECONDS = 5.0
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class StartFailures:
    """The file that the first process to fail writes."""

    file: Path

    def cause(self) -> str | None:
        """The exception of the process that failed first, in one line."""
        with suppress(FileNotFoundError, ValueError):
            cause: str = json.loads(self.file.read_text())["cause"]
            return cause
        return None


@contextmanager
def start_failures() -> Iterator[StartFailures]:
    """Let the engine's processes that start meanwhile report why they fail."""
    with tempfile.TemporaryDirectory(prefix="lora-compose-start-") as directory:
        failures = StartFailures(Path(directory, "failure.json"))
        os.environ[PLACE] = str(failures.file)
        try:
            yield failures
        finally:
            del os.environ[PLACE]


def report_start_failures() -> None:
    """Report the exception that keeps this process from starting, if its parent asked for it."""
    place = os.environ.get(PLACE)
    if place is None:
        return
    for name, message in MESSAGES.items():
        logger = logging.getLogger(name)
        if not any(isinstance(one, StartFailureFilter) for one in logger.filters):
            logger.addFilter(StartFailureFilter(Path(place), message))


class StartFailureFilter(logging.Filter):
    """Writes the exception to the file, and leaves the traceback out unless the level is DEBUG.

    The process ends next, and `multiprocessing` would print the traceback again."""

    def __init__(self, file: Path, message: str) -> None:
        super().__init__()
        self._file = file
        self._message = message

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if error is None or record.msg != self._message:
            return True
        # The first process to fail has the cause. The others fail because of it.
        try:
            with self._file.open("x") as file:
                json.dump({"cause": one_line(error)}, file)
        except FileExistsError:
            pass
        except OSError:
            return True
        if logging.getLogger(record.name).isEnabledFor(logging.DEBUG):
            return True
        sys.stderr.flush()
        with open(os.devnull, "w") as nowhere:  # noqa: PTH123  a device
            os.dup2(nowhere.fileno(), 2)
        return False


def one_line(error: BaseException) -> str:
    """The message of an exception in one line of at most LONGEST characters."""
    details = getattr(error, "errors", None)  # pydantic's message has several lines and a link
    if callable(details):
        with suppress(Exception):
            return "; ".join(str(one["msg"]) for one in details())[:LONGEST]
    words = " ".join(str(error).split())
    if not words or isinstance(error, KeyError):
        words = f"{type(error).__name__} {words}".strip()
    return words if len(words) <= LONGEST else f"{words[:LONGEST]}…"


async def cause_of_end(failures: StartFailures, processes: Sequence[BaseProcess]) -> str | None:
    """Why the first of `processes` ended: its own report, or its exit code. None if none has ended.

    Waits for a process that is about to end."""
    for _ in range(int(END_SECONDS / POLL_SECONDS)):
        cause = failures.cause()
        if cause is not None:
            return cause
        codes = [process.exitcode for process in processes if process.exitcode]
        if codes or not processes:
            return sentence_of(codes[0]) if codes else None
        await asyncio.sleep(POLL_SECONDS)
    return None


def sentence_of(code: int) -> str:
    """The usual reason for an exit code of an engine process that reported nothing."""
    if code == -signal.SIGKILL:
        return (
            "its process was killed while it loaded, as the kernel does when memory runs out. Free memory, "
            "raise the container's memory limit, or choose a smaller model, --dtype bfloat16, or a smaller "
            "--kv-cache-memory-bytes"
        )
    if code == -signal.SIGBUS:
        return (
            "its process was ended by SIGBUS, as when shared memory is full. Give /dev/shm more space "
            "(containers: --shm-size=1g)"
        )
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended with code {code}. --log-level debug shows more"
