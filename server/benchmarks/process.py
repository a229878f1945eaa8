"""One benchmark, as a process of its own: the server only starts it, hears of its progress, and ends it."""

import asyncio
import json
import os
import re
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LAST_LINES = 5
LONGEST_LINE = 1 << 16
END_SECONDS = 5.0
# The directories of absolute paths; not of what follows a host in an URL.
DIRECTORIES = re.compile(r"(?<![\w/.])/(?!/)(?:[^\s'\"/]+/)*")

Told = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Exit:
    """How it ended by itself: its exit code, and the end of its stderr without directories."""

    code: int
    words: str


async def follow(argv: Sequence[str], folder: Path, environment: Mapping[str, str], told: Told) -> Exit:
    """Run `argv` in `folder`, and `told` each progress it reports; a line of JSON each, other lines are
    ignored.

    However this is left, cancelled too, the process and those it started in its session are gone.
    Raises OSError where it cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        *argv,
        cwd=folder,
        env=dict(environment),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        start_new_session=True,
    )
    words: deque[str] = deque(maxlen=LAST_LINES)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_hear(process.stdout, told))
            group.create_task(_keep(process.stderr, words))
        return Exit(await process.wait(), DIRECTORIES.sub("", "\n".join(words)))
    finally:
        await _end(process)


async def _hear(stream: asyncio.StreamReader | None, told: Told) -> None:
    async for line in _lines(stream):
        with suppress(ValueError, RecursionError):
            said = json.loads(line)
            progress = said.get("progress") if isinstance(said, dict) else None
            if isinstance(progress, dict):
                told({name: progress.get(name) for name in ("done", "total", "what")})


async def _keep(stream: asyncio.StreamReader | None, words: deque[str]) -> None:
    async for line in _lines(stream):
        if line.strip():
            words.append(line.decode(errors="replace")[-500:])


async def _lines(stream: asyncio.StreamReader | None) -> AsyncIterator[bytes]:
    """Its lines, those too long cut: `StreamReader.readline` would raise."""
    assert stream is not None
    rest = b""
    while chunk := await stream.read(LONGEST_LINE):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line
        rest = rest[-LONGEST_LINE:]
    if rest:
        yield rest


async def _end(process: Process) -> None:
    """Ask its whole session to end, then make it."""
    if process.returncode is None:
        _signal(process, signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), END_SECONDS)
    _signal(process, signal.SIGKILL)
    with suppress(TimeoutError):
        await asyncio.wait_for(process.communicate(), END_SECONDS)


def _signal(process: Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
