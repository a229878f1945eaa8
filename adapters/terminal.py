"""What commands print: tables and results on stdout, progress on stderr.

Tables are as wide as the terminal. In a pipe or a file they are as wide as their content, or as COLUMNS says.
Progress is a bar or a spinner on a terminal; elsewhere it is one line now and then.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

WIDE: Final = 1000
"""Columns of a pipe or a file: more than any table has."""
LINE_SECONDS: Final = 10.0
"""Without a terminal, at most one line of progress is printed in this time."""

OnStep = Callable[[float, float | None, str], None]
"""Gets how much is done, how much there is (None: unknown), and what is being done."""


def stdout() -> Console:
    """The console for results, on stdout."""
    is_sized = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal()
    return Console(width=None if is_sized else WIDE)


def stderr() -> Console:
    """The console for progress and remarks, on stderr."""
    is_sized = sys.stderr.isatty() or os.environ.get("COLUMNS", "").isdecimal()
    return Console(stderr=True, width=None if is_sized else WIDE)


@contextmanager
def chatter_on_stderr() -> Iterator[None]:
    """While the context is open, what libraries print goes to stderr. Stdout is for results."""
    with redirect_stdout(sys.stderr):
        yield


@contextmanager
def status(text: str) -> Iterator[Callable[[str], None]]:
    """A spinner with `text` while the context is open. The value changes the text."""
    console = stderr()
    if console.is_terminal:
        with console.status(text) as shown:
            yield shown.update
        return

    def line(new: str) -> None:
        console.print(f"{new} …", markup=False, highlight=False)

    line(text)
    yield line


@contextmanager
def progress_bar(title: str) -> Iterator[OnStep]:
    """A bar with `title` while the context is open. The value moves it."""
    console = stderr()
    if not console.is_terminal:
        yield _Lines(console, title).step
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[what]}"), console=console, transient=True) as bar:
        task = bar.add_task(title, total=None, what="")

        def step(done: float, total: float | None, what: str) -> None:
            bar.update(task, completed=done, total=total, what=what)

        yield step


class _Lines:
    """Progress as lines, not more often than every LINE_SECONDS."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._next = time.monotonic() + LINE_SECONDS

    def step(self, done: float, total: float | None, what: str) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + LINE_SECONDS
        count = f"{done:g}" if total is None else f"{done:g} of {total:g}"
        self._console.print(f"{self._title}: {count} {what}".rstrip(), markup=False, highlight=False)
