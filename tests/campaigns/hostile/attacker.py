"""Runs the attacker in its own process, so that its work does not delay the victim's client.

The process has the lowest priority, because a real attacker computes on another machine.
"""

import asyncio
import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from tests.campaigns.hostile.attacks import ATTACKS, Attack
from tests.campaigns.hostile.wire import Wire

LOWEST_PRIORITY = 19


@dataclass(frozen=True)
class Order:
    """One attack: which one, and for how long."""

    attack: str
    seconds: float
    name: str
    """Name of the attacker's key, and prefix of the names that it may register."""
    key: str
    seed: str


class Attacker:
    """A process that runs one attack at a time."""

    def __init__(self, line: "Connection[Any, Any]") -> None:
        self._line = line

    def start(self, order: Order) -> None:
        """Start an attack, and return immediately."""
        self._line.send(order)

    def wait(self) -> dict[str, Any]:
        """Wait until the attack ends. Returns the statuses of its replies, and its CPU seconds."""
        replies: dict[str, Any] = self._line.recv()
        return replies


@contextmanager
def attacker(port: int, root: str) -> Iterator[Attacker]:
    """Runs the attacker's process until the context closes."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, port, root), daemon=True)
    process.start()
    try:
        yield Attacker(ours)
    finally:
        process.kill()
        process.join()


def _work(line: "Connection[Any, Any]", port: int, root: str) -> None:
    os.nice(LOWEST_PRIORITY)
    while True:
        order: Order = line.recv()
        began = time.process_time()
        attack = Attack(Wire(port, order.key), root, order.name, random.Random(order.seed))
        asyncio.run(_attack(attack, order))
        line.send({"statuses": dict(attack.replies), "cpu_seconds": round(time.process_time() - began, 2)})


async def _attack(attack: Attack, order: Order) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(order.seconds):
            await ATTACKS[order.attack](attack)
