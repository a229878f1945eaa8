"""A fault: what is sent or done to the server, and the replies that are allowed."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

import httpx

from tests.campaigns.faults.target import Target, body_of

Act = Callable[[Target], Iterable[str]]
"""Does it, and returns the replies, such as "404 model_not_found".

AssertionError if a reply is not allowed.
"""
Send = Callable[[Target], httpx.Response | None]

HUNG_UP = "hung up"
LEAKS = re.compile(r"/tmp|/root|/home|site-packages|Traceback|File \\?\"|sk-lc-|\.py\b")


class Needs(Enum):
    """The server that a fault needs."""

    ANY = "any"
    KEYS = "a server with keys"
    ALONE = "a server that is used by no other test: it is killed, or its resources are limited"


@dataclass(frozen=True)
class Fault:
    """Variants of one thing that goes wrong. The state of the server must be the same afterwards."""

    title: str
    variants: Mapping[str, Act]
    needs: Needs = Needs.ANY
    audited: bool = False
    """Whether each variant must add a line to the audit log."""


@dataclass
class Outcome:
    """The replies to the variants of one fault, and the findings."""

    title: str
    variants: int = 0
    replies: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0


def named(variants: Iterable[tuple[str, Act]], longest: int = 60) -> dict[str, Act]:
    """Variants by name, cut to `longest` characters.

    Two equal names are an error, as one would not be tried.
    """
    pairs = [(name[:longest], act) for name, act in variants]
    by_name = dict(pairs)
    assert len(by_name) == len(pairs), f"two variants have the same name in {[name for name, _ in pairs]}"
    return by_name


def refused(*allowed: str, send: Send) -> Act:
    """The request must get one of the `allowed` replies, such as "422 bad_rank"; "hung up" means no reply."""

    def act(target: Target) -> list[str]:
        return [checked(send(target), *allowed)]

    return act


def checked(reply: httpx.Response | None, *allowed: str) -> str:
    """The status and error code of a reply. It must be allowed, and an error must have the common form."""
    if reply is None:
        assert HUNG_UP in allowed, "no reply"
        return HUNG_UP
    error = body_of(reply).get("error") or {}
    outcome = f"{reply.status_code} {error.get('code', '')}".strip()
    assert outcome in allowed, f"{outcome}: {reply.text[:300]}"
    if reply.status_code >= 400:
        _check_error(reply, error)
    return outcome


def _check_error(reply: httpx.Response, error: dict[str, object]) -> None:
    assert set(error) == {"message", "type", "param", "code"}, reply.text[:300]
    assert not (leak := LEAKS.search(reply.text)), f"the reply shows {leak and leak.group()!r}"
    assert reply.headers.get("x-request-id"), "no x-request-id"
    if reply.status_code in (429, 503):
        assert "retry-after" in reply.headers or reply.headers.get("x-should-retry") == "false"
    else:
        assert reply.headers.get("x-should-retry") == "false"
