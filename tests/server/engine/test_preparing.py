"""Builds in the background."""

import threading
import time

import pytest

from server.engine.preparing import Preparing


def wait_for(preparing: Preparing[int], key: str) -> tuple[str, str]:
    while preparing.state(key)[0] == "preparing":
        time.sleep(0.001)
    return preparing.state(key)


def test_a_build_runs_elsewhere_and_is_taken_once() -> None:
    preparing: Preparing[int] = Preparing()
    gate = threading.Event()
    preparing.begin("a", lambda: (gate.wait(10) and threading.get_ident()) or 0)
    assert preparing.state("a") == ("preparing", "")
    assert preparing.take("a") is None
    gate.set()
    assert wait_for(preparing, "a") == ("prepared", "")
    assert preparing.take("a") not in (None, threading.get_ident())
    assert preparing.take("a") is None


def test_beginning_again_does_not_build_again() -> None:
    preparing: Preparing[int] = Preparing()
    built: list[int] = []
    for number in range(3):
        preparing.begin("a", lambda number=number: built.append(number) or 1)  # type: ignore[misc,func-returns-value]
    wait_for(preparing, "a")
    assert built == [0]


def test_a_failure_says_why_and_can_be_tried_again() -> None:
    preparing: Preparing[int] = Preparing()
    preparing.begin("a", lambda: int("x"))
    state, reason = wait_for(preparing, "a")
    assert state == "failed"
    assert "ValueError" in reason
    with pytest.raises(ValueError, match="invalid literal"):
        preparing.take("a")
    preparing.begin("a", lambda: 7)
    wait_for(preparing, "a")
    assert preparing.take("a") == 7


def test_what_is_forgotten_is_gone() -> None:
    preparing: Preparing[int] = Preparing()
    preparing.begin("a", lambda: 1)
    preparing.forget("a")
    assert preparing.take("a") is None
