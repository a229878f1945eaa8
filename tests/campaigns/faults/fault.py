"""A fault: what is done to the server, and the only replies it may give."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

import httpx

from tests.campaigns.faults.target import Target, body_of

Act = Callable[[Target], Iterable[str]]
"""Does it and says what came back, "404 model_not_found"; AssertionError where that is not allowed."""
Send = Callable[[Target], httpx.Response | None]

HUNG_UP = "hung up"
LEAKS = re.compile(r"/tmp|/root|/home|site-packages|Traceback|File \\?\"|sk-lc-|\.py\b")


class Needs(Enum):
    """Which server a fault wants."""

    ANY = "any"
    KEYS = "one with keys"
    ALONE = "one that nobody else uses: it is killed, or what it may use is cut"


@dataclass(frozen=True)
class Fault:
    """`variants` of one thing that goes wrong. `by` is the registry's state afterwards: always as before."""

    title: str
    variants: Mapping[str, Act]
    needs: Needs = Needs.ANY
    audited: bool = False
    """Whether each variant leaves a line in the audit log."""


@dataclass
class Outcome:
    """What came of the variants of one fault."""

    title: str
    variants: int = 0
    replies: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0


def named(variants: Iterable[tuple[str, Act]], longest: int = 60) -> dict[str, Act]:
    """Each under its name, cut to `longest` characters; no two may fall together, or one would go untried."""
    pairs = [(name[:longest], act) for name, act in variants]
    together = dict(pairs)
    assert len(together) == len(pairs), f"two variants of one name among {[name for name, _ in pairs]}"
    return together


def refused(*allowed: str, send: Send) -> Act:
    """It must be refused, as one of `allowed`, "422 bad_rank"; "hung up" is no reply at all."""

    def act(target: Target) -> list[str]:
        return [told(send(target), *allowed)]

    return act


def told(reply: httpx.Response | None, *allowed: str) -> str:
    """What it says, which must be allowed, and in the form that every error has."""
    if reply is None:
        assert HUNG_UP in allowed, "no reply"
        return HUNG_UP
    error = body_of(reply).get("error") or {}
    said = f"{reply.status_code} {error.get('code', '')}".strip()
    assert said in allowed, f"{said}: {reply.text[:300]}"
    if reply.status_code >= 400:
        _check_error(reply, error)
    return said


def _check_error(reply: httpx.Response, error: dict[str, object]) -> None:
    assert set(error) == {"message", "type", "param", "code"}, reply.text[:300]
    assert not (leak := LEAKS.search(reply.text)), f"the reply shows {leak and leak.group()!r}"
    assert reply.headers.get("x-request-id"), "no x-request-id"
    if reply.status_code in (429, 503):
        assert "retry-after" in reply.headers or reply.headers.get("x-should-retry") == "false"
    else:
        assert reply.headers.get("x-should-retry") == "false"
