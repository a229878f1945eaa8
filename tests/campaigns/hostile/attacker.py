"""The attacker's process, of its own so that its work is not in the victim's times.

It has the lowest priority: a real one has a machine of its own, and the server's is what is measured.
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
    """What to do and for how long."""

    attack: str
    seconds: float
    name: str
    """Of its key, and with a hyphen before the names it may register."""
    key: str
    seed: str


class Attacker:
    """A process that takes one order at a time."""

    def __init__(self, line: "Connection[Any, Any]") -> None:
        self._line = line

    def begin(self, order: Order) -> None:
        """Returns at once."""
        self._line.send(order)

    def end(self) -> dict[str, Any]:
        """Wait for the end of what was begun: statuses, and the seconds of CPU it took."""
        told: dict[str, Any] = self._line.recv()
        return told


@contextmanager
def attacker(port: int, root: str) -> Iterator[Attacker]:
    """Ended with the context."""
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
        line.send({"statuses": dict(attack.told), "cpu_seconds": round(time.process_time() - began, 2)})


async def _attack(attack: Attack, order: Order) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(order.seconds):
            await ATTACKS[order.attack](attack)
