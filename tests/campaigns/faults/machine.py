"""Faults of the machine: a full disk, no descriptors, a dead or stopped engine process."""

import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import httpx

from tests.campaigns.faults.broken_adapter import each, made
from tests.campaigns.faults.fault import Act, Fault, Needs, checked
from tests.campaigns.faults.target import GOOD, Target

WAIT_SECONDS = 120.0
_numbers = count(1)


def _new(target: Target) -> httpx.Response:
    """Register an adapter with new bytes."""
    factor = 1 + next(_numbers) / 1000
    return target.register(made(target, each(lambda t: t * factor, "lora_B")), "fresh")


@contextmanager
def _limited(target: Target, kind: int, most: int) -> Iterator[None]:
    """Limits a resource of the running server process until the context closes."""
    process = target.server.process.pid
    before = resource.prlimit(process, kind)
    resource.prlimit(process, kind, (most, before[1]))
    try:
        yield
    finally:
        resource.prlimit(process, kind, before)


CHANGES: dict[str, Callable[[Target], httpx.Response]] = {
    "registering": _new,
    "uploading": lambda t: t.http.post(
        "/v1/adapters",
        data={"name": "fresh"},
        files={
            name: (GOOD / name).read_bytes() for name in ("adapter_config.json", "adapter_model.safetensors")
        },
    ),
    "an alias": lambda t: t.http.put("/v1/adapters/roll/aliases/other", json={"version": 1}),
    "a saved composition": lambda t: t.http.post(
        "/v1/compositions", json={"name": "saved", "model": "roll+upper"}
    ),
    "removing": lambda t: t.http.delete("/v1/adapters/dbl"),
}


def _full(change: str, most: int) -> Act:
    """No file of the server may grow beyond `most` bytes, as on a full disk."""

    def act(target: Target) -> list[str]:
        with _limited(target, resource.RLIMIT_FSIZE, most):
            outcome = checked(CHANGES[change](target), "503 storage_unavailable")
            others = checked(target.generate({"model": "roll"}), "200")
        return [outcome, f"{others} for others"]

    return act


def _merge_on_a_full_disk(target: Target) -> list[str]:
    with _limited(target, resource.RLIMIT_FSIZE, 4096):
        outcome = checked(
            target.generate({"model": "svd(roll:0.77+upper:0.33,rank=4)"}), "503 storage_unavailable"
        )
    return [outcome, checked(target.generate({"model": "svd(roll:0.77+upper:0.33,rank=4)"}), "200")]


def _no_descriptors(target: Target) -> list[str]:
    used = {int(entry.name) for entry in os.scandir(f"/proc/{target.server.process.pid}/fd")}
    # The connection gets the first free number. The second one is the limit, so nothing more can be opened.
    _, second, *_ = (number for number in range(len(used) + 2) if number not in used)
    with _limited(target, resource.RLIMIT_NOFILE, second):
        outcome = checked(_new(target), "503 storage_unavailable")
    return [outcome, checked(target.generate({"model": "roll"}), "200")]


def until(holds: Callable[[], bool]) -> float:
    """Wait until the condition holds. Returns the seconds that this took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < WAIT_SECONDS
        time.sleep(0.02)
    return time.monotonic() - began


def _is_ready(target: Target) -> bool:
    return target.http.get("/readyz").status_code == 200


def kill_engine(target: Target) -> None:
    """Kill the engine and wait for the next one.

    What the server keeps of a dead engine is kept from now on.
    """
    target.server.engine().kill()
    until(lambda: not _is_ready(target))
    until(lambda: _is_ready(target))


def _killed(target: Target) -> list[str]:
    body = {"model": "roll", "prompt": "x", "max_tokens": 900, "ignore_eos": True, "stream": True}
    with target.http.stream("POST", "/v1/completions", json=body) as stream:
        lines = stream.iter_lines()
        next(lines)
        target.server.engine().kill()
        rest = "".join(lines)
    assert '"code": "engine_unavailable"' in rest, "the stream ended without an error event"
    noticed = until(lambda: not _is_ready(target))
    assert noticed < 2, noticed
    meanwhile = checked(target.generate({"model": "roll"}), "503 engine_unavailable", "200")
    until(lambda: _is_ready(target))
    return ["an error event", meanwhile, checked(target.generate({"model": "roll"}), "200")]


def _stopped(target: Target) -> list[str]:
    """Stop the engine until the server notices, then continue it. No answer may be wrong."""
    engine = target.server.engine()
    engine.send_signal(signal.SIGSTOP)
    try:
        noticed = until(lambda: not _is_ready(target))
    finally:
        engine.send_signal(signal.SIGCONT)
    until(lambda: _is_ready(target))
    return [f"503 after {noticed:.1f} s", checked(target.generate({"model": "roll"}), "200")]


FAULTS = (
    Fault(
        "A full disk",
        {f"{change}, {most} bytes": _full(change, most) for change in CHANGES for most in (0, 4096)}
        | {"merging": _merge_on_a_full_disk},
        Needs.ALONE,
    ),
    Fault("No file descriptors left", {"registering": _no_descriptors}, Needs.ALONE),
    Fault("The engine is killed during a stream", {"SIGKILL": _killed}, Needs.ALONE),
    Fault("The engine is stopped with SIGSTOP", {"SIGSTOP, SIGCONT": _stopped}, Needs.ALONE),
)
