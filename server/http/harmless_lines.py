"""Lines on stderr that are known to be harmless, and the relay that leaves them out.

Native code and child processes write to the file descriptor, where no filter of Python's logging sees them.
So the descriptor is a pipe while the relay runs, and a thread copies the pipe line by line. A line that no
row of the table names is always copied.
"""

import os
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TextIO

STDERR = 2
CHUNK = 1 << 16
END = b"\0end of the relay\0\n"
END_SECONDS = 2.0
SOURCE_LINE = r"^(\(.*?\) )?  \S"
"""Python prints the source line under a warning. A process of vLLM puts its name before the line."""


@dataclass(frozen=True)
class HarmlessLine:
    """A line in which `pattern` is found. `reason` says why an operator does not need the line.

    If the next line matches `then`, it belongs to this one."""

    pattern: str
    reason: str
    then: str | None = None


LINES = (
    HarmlessLine(
        r"Triton is (installed, but doesn't include CPU backend|not installed\. triton-cpu is expected)",
        "the kernels on CPUs are vLLM's C++ and this project's own: none needs Triton",
    ),
    HarmlessLine(
        r"Model Runner V2 requires Triton; using the V1 model runner",
        "the model runner of CPUs, with which this project is tested",
    ),
    HarmlessLine(
        r"Enforce eager set, disabling torch\.compile|TORCH_COMPILE_DISABLE is set, disabling torch\.compile"
        r"|Inductor compilation was disabled by user settings",
        "`serve` chooses this on CPUs: compiling takes minutes, and needs a compiler",
    ),
    HarmlessLine(
        r"Reset SSM cache type to float32 for accelerated GDN mamba backend 'none'",
        "vLLM says it for every model on a CPU, with and without such a cache",
    ),
    HarmlessLine(
        r"Attempted to load weight \S+ with dtype \S+ into parameter with dtype torch\.",
        "vLLM says it for each weight if the data type is not the checkpoint's; `serve` says what it chose",
    ),
    HarmlessLine(
        r"lib(tcmalloc|iomp) is not found in LD_PRELOAD",
        "advice on speed, which is in docs/cpu-performance.md",
    ),
    HarmlessLine(
        r"NUMA binding: Using MEMBIND policy",
        "vLLM keeps memory on the nodes of its cores; the line names no fault",
    ),
    HarmlessLine(
        r"The chat template requires system-first ordering, so inline system messages in /v1/messages",
        "vLLM's probe cannot read the tag `generation`, which templates for training have",
    ),
    HarmlessLine(
        r"vLLM has deprecated support for supporting different tokenizers for different LoRAs",
        "vLLM says it at the first request with an adapter; the registry keeps no tokenizer of an adapter",
    ),
    HarmlessLine(
        r"`torch\.distributed\.reduce_op` is deprecated",
        "vLLM looks through all modules for kernels, and meets this old name",
        SOURCE_LINE,
    ),
    HarmlessLine(
        r"resource_tracker: There appear to be \d+ leaked",
        "Python says it after a process was ended, and then frees what it counts",
        SOURCE_LINE,
    ),
    HarmlessLine(
        r"nanobind: (leaked \d+ (instances|types|functions|keep_alive)|this is likely caused by a reference)"
        r"|^ - leaked (instance|type|function) |^ - \.\.\. skipped remainder$"
        r"|^See https://nanobind\.readthedocs\.io/.*/refleaks\.html$",
        "a Python process with Triton's library in it has ended: the memory is free",
    ),
)


class HarmlessLineFilter:
    """Decides line by line, because a line may belong to the one before it."""

    def __init__(self, lines: Sequence[HarmlessLine] = LINES) -> None:
        self._rows = [(re.compile(line.pattern), line.then and re.compile(line.then)) for line in lines]
        self._then: re.Pattern[str] | None = None

    def drops(self, line: str) -> bool:
        """Whether the line is left out."""
        then, self._then = self._then, None
        if then is not None and then.search(line):
            return True
        for pattern, next_line in self._rows:
            if pattern.search(line):
                self._then = next_line or None
                return True
        return False


@contextmanager
def harmless_lines_left_out() -> Iterator[TextIO]:
    """Relay stderr of this process and of the processes that it starts. Gives the real stderr.

    At the end stderr is what it was, and everything written before has been copied."""
    sys.stderr.flush()
    real = os.dup(STDERR)
    reader, writer = os.pipe()
    os.dup2(writer, STDERR)
    thread = threading.Thread(target=_copy, args=(reader, real), name="stderr relay", daemon=True)
    thread.start()
    try:
        with open(real, "w", buffering=1, errors="backslashreplace", closefd=False) as stream:
            yield stream
    finally:
        sys.stderr.flush()
        os.dup2(real, STDERR)
        os.write(writer, END)
        thread.join(END_SECONDS)


def _copy(reader: int, real: int) -> None:
    """Copy until `END`. A progress bar's carriage return ends a line too."""
    left_out, rest = HarmlessLineFilter(), b""
    while chunk := os.read(reader, CHUNK):
        *lines, rest = re.split(rb"(?<=[\r\n])", rest + chunk)
        for line in lines:
            text = line.removesuffix(END)
            if text and not left_out.drops(text.decode(errors="replace").rstrip("\r\n")):
                _write(real, text)
            if text is not line:
                return


def _write(real: int, line: bytes) -> None:
    """Write all of it. If stderr is closed, the line is lost, and its writer goes on."""
    with suppress(OSError):
        while line:
            line = line[os.write(real, line) :]
