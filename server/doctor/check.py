"""A check and what it found: a status, a sentence, and what to do.

A check is data: a name and a function. One that raises has failed, with the exception's sentence; the others
go on.

What was found, as a table for people.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from lora_compose.adapters.errors import LoraComposeError

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """`advice` says what to do; it is empty where there is nothing to do."""

    status: Status
    sentence: str
    advice: str = ""


@dataclass(frozen=True)
class Check:
    """`section` is what is examined: "installation", "model", "adapter NAME", "data", "server"."""

    section: str
    name: str
    look: Callable[[], Finding]


@dataclass(frozen=True)
class Result:
    """A check that was made."""

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
    """Make the check, whatever it raises."""
    try:
        found = check.look()
    except Exception as error:  # noqa: BLE001  a doctor who faints has found something
        found = _fainted(error)
    return Result(check.section, check.name, found.status, found.sentence, found.advice)


def _fainted(error: Exception) -> Finding:
    if isinstance(error, LoraComposeError):
        cause = f" ({_first_line(error.__cause__)})" if error.__cause__ else ""
        return fail(f"{error.message}{cause}", f"Mend that and look again (code {error.code})")
    return fail(f"{type(error).__name__}: {_first_line(error)}", "Mend that and look again")


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:300]


STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def table(results: Iterable[Result]) -> Table:
    """One row a check; what to do stands under what was found."""
    made = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for _ in range(4):
        made.add_column(overflow="fold")
    before = ""
    for result in results:
        section = result.section if result.section != before else ""
        found = Text(result.sentence)
        if result.advice:
            found.append(f"\n-> {result.advice}", style="dim")
        made.add_row(
            Text(section, "bold"), Text(result.name), Text(result.status, STYLES[result.status]), found
        )
        before = result.section
    return made


def summary(results: list[Result]) -> str:
    """One line: how many of each."""
    counts = {status: sum(result.status == status for result in results) for status in STYLES}
    if counts["fail"]:
        return f"{counts['fail']} failed, {counts['warn']} to look at, {counts['ok']} fine"
    return f"nothing failed: {counts['warn']} to look at, {counts['ok']} fine"
