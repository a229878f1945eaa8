"""A check and what it found: a status, a sentence, and what to do.

A check is data: a name and a function. One that raises has failed, with the exception's sentence; the others
go on.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from adapters.errors import LoraComposeError

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
