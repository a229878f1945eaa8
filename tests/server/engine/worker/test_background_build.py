"""Builds in the background."""

import threading
import time

import pytest

from lora_compose.server.engine.worker.background_build import BackgroundBuilds, yielding
from lora_compose.server.engine.worker.stacking import Yielding


def wait_for(builds: BackgroundBuilds[int], key: str) -> tuple[str, str]:
    while builds.state(key)[0] == "preparing":
        time.sleep(0.001)
    return builds.state(key)


def test_a_build_runs_elsewhere_and_is_taken_once() -> None:
    builds: BackgroundBuilds[int] = BackgroundBuilds()
    gate = threading.Event()
    builds.start("a", lambda _: (gate.wait(10) and threading.get_ident()) or 0)
    assert builds.state("a") == ("preparing", "")
    assert builds.take("a") is None
    gate.set()
    assert wait_for(builds, "a") == ("prepared", "")
    assert builds.take("a") not in (None, threading.get_ident())
    assert builds.take("a") is None


def test_beginning_again_does_not_build_again() -> None:
    builds: BackgroundBuilds[int] = BackgroundBuilds()
    built: list[int] = []
    for number in range(3):
        builds.start("a", lambda _, number=number: built.append(number) or 1)  # type: ignore[misc,func-returns-value]
    wait_for(builds, "a")
    assert built == [0]


def test_a_failure_says_why_and_can_be_tried_again() -> None:
    builds: BackgroundBuilds[int] = BackgroundBuilds()
    builds.start("a", lambda _: int("x"))
    state, reason = wait_for(builds, "a")
    assert state == "failed"
    assert "ValueError" in reason
    with pytest.raises(ValueError, match="invalid literal"):
        builds.take("a")
    builds.start("a", lambda _: 7)
    wait_for(builds, "a")
    assert builds.take("a") == 7


def test_what_is_forgotten_is_gone() -> None:
    builds: BackgroundBuilds[int] = BackgroundBuilds()
    builds.start("a", lambda _: 1)
    builds.discard("a")
    assert builds.take("a") is None


def test_forgetting_what_is_being_built_lets_the_next_begin() -> None:
    builds: BackgroundBuilds[int] = BackgroundBuilds()
    gate, built = threading.Event(), list[str]()
    builds.start("a", lambda _: int(gate.wait(10)))
    builds.start("b", lambda _: built.append("b") or 2)  # type: ignore[func-returns-value]
    builds.start("c", lambda _: 3)
    builds.discard("a")
    builds.discard("b")
    builds.start("a", lambda _: 4)
    gate.set()
    assert wait_for(builds, "c") == ("prepared", "")
    assert wait_for(builds, "a") == ("prepared", "")
    assert builds.take("a") == 4
    assert built == []


def test_a_long_build_leaves_the_interpreter_to_others() -> None:
    """The engine's thread gets most of the CPU, although the build never ends."""
    builds: BackgroundBuilds[int] = BackgroundBuilds()
    end = threading.Event()

    def build(yielding: Yielding) -> int:
        return sum(not end.is_set() for _ in yielding(iter(end.is_set, True)))

    builds.start("a", build)
    own, whole = time.thread_time(), time.process_time()
    deadline = time.perf_counter() + 0.5
    while time.perf_counter() < deadline:
        pass
    # The CPU time of the two threads is compared: how much of it other processes leave does not matter.
    own, whole = time.thread_time() - own, time.process_time() - whole
    end.set()
    wait_for(builds, "a")
    assert own / whole > 0.5


def test_the_pauses_leave_out_nothing() -> None:
    assert list(yielding(range(10_000))) == list(range(10_000))
