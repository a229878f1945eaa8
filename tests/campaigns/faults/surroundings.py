"""What no fault may change: readiness, other answers, registry, slots, files and descriptors."""

import re
import time
from collections.abc import Callable
from typing import Any

import psutil

from tests.campaigns.faults.target import BASE, Target

SETTLE_SECONDS = 10.0
SLOTS = re.compile(r"^lora_compose_active_slots (\S+)$", re.MULTILINE)


def surroundings(target: Target) -> dict[str, Any]:
    """The current values, read when no request is in flight."""
    return {
        "livez": target.http.get("/livez").status_code,
        "readyz": target.http.get("/readyz").status_code,
        **{f"the answer of {model}": _answer(target, model) for model in (BASE, "upper")},
        "adapters": _listed(target, "/v1/adapters"),
        "compositions": _listed(target, "/v1/compositions"),
        "fusion": target.http.get("/v1/fusion").json(),
        "active slots": _settled(lambda: _slots(target), 0.0),
        "temporary files": _settled(lambda: [path.name for path in (target.data_dir / "tmp").iterdir()], []),
    }


def descriptors(target: Target, at_most: int | None = None) -> int:
    """Number of open files of the server's processes. Waits a little until there are `at_most`."""
    deadline = time.monotonic() + (SETTLE_SECONDS if at_most is not None else 0)
    while True:
        server = psutil.Process(target.server.process.pid)
        found: int = sum(process.num_fds() for process in (server, *server.children(recursive=True)))
        if at_most is None or found <= at_most or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The values that have changed, as text."""
    return [
        f"{name}: {after[name]!r:.200}, was {was!r:.200}"
        for name, was in before.items()
        if after[name] != was
    ]


def audit_lines(target: Target) -> int:
    """Number of lines of the audit log."""
    path = target.data_dir / "audit.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _listed(target: Target, path: str) -> list[Any]:
    data: list[Any] = target.http.get(path).json()["data"]
    return data


def _answer(target: Target, model: str) -> list[Any]:
    reply = target.generate({"model": model, "max_tokens": 8, "logprobs": 1})
    assert reply.status_code == 200, reply.text
    choice = reply.json()["choices"][0]
    return [choice["text"], choice["logprobs"]["token_logprobs"]]


def _slots(target: Target) -> float:
    found = SLOTS.search(target.http.get("/metrics").text)
    assert found is not None
    return float(found.group(1))


def _settled(read: Callable[[], Any], wanted: Any) -> Any:
    deadline = time.monotonic() + SETTLE_SECONDS
    while (found := read()) != wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    return found
