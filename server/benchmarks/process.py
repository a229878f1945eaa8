"""Runs a benchmark as a child process: starts it, reads its progress, and ends it."""

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

from lora_compose.server.client.tied import tied

KEPT_LINES = 5
MAX_LINE_BYTES = 1 << 16
END_SECONDS = 5.0
# The directories of absolute paths, but not the path of a URL.
DIRECTORIES = re.compile(r"(?<![\w/.])/(?!/)(?:[^\s'\"/]+/)*")

OnProgress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Exit:
    """How the process ended by itself: exit code, and the last lines of its stderr, without directories."""

    code: int
    stderr: str


async def follow(
    argv: Sequence[str], folder: Path, environment: Mapping[str, str], on_progress: OnProgress
) -> Exit:
    """Run `argv` in `folder`. `on_progress` gets the progress of each JSON line; other lines are ignored.

    When this returns, raises or is cancelled, the process and the others of its session have ended.
    Raises OSError if it cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        *tied(argv),
        cwd=folder,
        env=dict(environment),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        start_new_session=True,
    )
    last_lines: deque[str] = deque(maxlen=KEPT_LINES)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_read_progress(process.stdout, on_progress))
            group.create_task(_keep_last_lines(process.stderr, last_lines))
        return Exit(await process.wait(), DIRECTORIES.sub("", "\n".join(last_lines)))
    finally:
        await _end(process)


async def _read_progress(stream: asyncio.StreamReader | None, on_progress: OnProgress) -> None:
    async for line in _lines(stream):
        with suppress(ValueError, RecursionError):
            fields = json.loads(line)
            progress = fields.get("progress") if isinstance(fields, dict) else None
            if isinstance(progress, dict):
                on_progress({name: progress.get(name) for name in ("done", "total", "what")})


async def _keep_last_lines(stream: asyncio.StreamReader | None, lines: deque[str]) -> None:
    async for line in _lines(stream):
        if line.strip():
            lines.append(line.decode(errors="replace")[-500:])


async def _lines(stream: asyncio.StreamReader | None) -> AsyncIterator[bytes]:
    """The lines of a stream. Lines that are too long are cut; `StreamReader.readline` would raise."""
    assert stream is not None
    rest = b""
    while chunk := await stream.read(MAX_LINE_BYTES):
        *complete, rest = (rest + chunk).split(b"\n")
        for line in complete:
            yield line
        rest = rest[-MAX_LINE_BYTES:]
    if rest:
        yield rest


async def _end(process: Process) -> None:
    """Send SIGTERM to the process, and after END_SECONDS SIGKILL, with its whole session."""
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
