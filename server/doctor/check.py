"""Checks, their findings, and the table that shows them.

A check is data: a name and a function. If the function raises, the check has failed with the message of the
exception, and the other checks still run.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from lora_compose.adapters.errors import LoraComposeError

Status = Literal["ok", "warn", "fail"]
FIX = "Fix this and run `lora-compose doctor` again"


@dataclass(frozen=True)
class Finding:
    """`advice` says what to do. It is empty if nothing has to be done."""

    status: Status
    sentence: str
    advice: str = ""


@dataclass(frozen=True)
class Check:
    """`section` is one of "installation", "machine", "model", "adapter NAME", "data", "server"."""

    section: str
    name: str
    run: Callable[[], Finding]


@dataclass(frozen=True)
class Result:
    """The finding of a check that was run."""

    section: str
    name: str
    status: Status
    sentence: str
    advice: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def ok(sentence: str) -> Finding:
    return Finding("ok", sentence)


def warn(sentence: str, advice: str) -> Finding:
    return Finding("warn", sentence, advice)


def fail(sentence: str, advice: str) -> Finding:
    return Finding("fail", sentence, advice)


def examine(check: Check) -> Result:
    """Run the check. An exception becomes a finding."""
    try:
        found = check.run()
    except Exception as error:  # noqa: BLE001  an exception of a check is a finding
        found = _failed_by_exception(error)
    return Result(check.section, check.name, found.status, found.sentence, found.advice)


def _failed_by_exception(error: Exception) -> Finding:
    if isinstance(error, LoraComposeError):
        cause = f" ({_first_line(error.__cause__)})" if error.__cause__ else ""
        return fail(f"{error.message}{cause}", f"{FIX} (code {error.code})")
    return fail(f"{type(error).__name__}: {_first_line(error)}", FIX)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:300]


STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def table(results: Iterable[Result]) -> Table:
    """One row a check. The advice is under the finding."""
    rows = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for _ in range(4):
        rows.add_column(overflow="fold")
    before = ""
    for result in results:
        section = result.section if result.section != before else ""
        found = Text(result.sentence)
        if result.advice:
            found.append(f"\n-> {result.advice}", style="dim")
        rows.add_row(
            Text(section, "bold"), Text(result.name), Text(result.status, STYLES[result.status]), found
        )
        before = result.section
    return rows


def summary(results: list[Result]) -> str:
    """One line: the number of checks of each status."""
    counts = {status: sum(result.status == status for result in results) for status in STYLES}
    if counts["fail"]:
        return f"{counts['fail']} failed, {counts['warn']} warnings, {counts['ok']} ok"
    return f"no check failed: {counts['warn']} warnings, {counts['ok']} ok"
