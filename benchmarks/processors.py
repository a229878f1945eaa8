"""How busy the processors of this machine are. The figures are the system's own (`/proc/stat`)."""

import asyncio
from dataclasses import dataclass

import psutil

SETTLE_SECONDS = 0.5
"""Threads of a server may wait busily for this long after its last request."""
QUIET_SECONDS = 1.0
"""Time over which the load of other programs is measured."""


@dataclass(frozen=True)
class ProcessorTimes:
    """Seconds of all processors together since the machine started."""

    total: float
    idle: float
    stolen: float
    """Time that the hypervisor gave to other machines."""

    @classmethod
    def now(cls) -> "ProcessorTimes":
        times = psutil.cpu_times()._asdict()
        guests = ("guest", "guest_nice")  # part of `user` already
        total = sum(seconds for name, seconds in times.items() if name not in guests)
        return cls(total, times["idle"] + times.get("iowait", 0.0), times.get("steal", 0.0))

    def busy_share(self, later: "ProcessorTimes") -> float:
        """Share of the time until `later` in which the processors worked, or were given away. 0 to 1."""
        total = later.total - self.total
        return min(1.0, max(0.0, 1 - (later.idle - self.idle) / total)) if total > 0 else 0.0

    def stolen_share(self, later: "ProcessorTimes") -> float:
        """Share of the time until `later` that the hypervisor gave to other machines. 0 to 1."""
        total = later.total - self.total
        return min(1.0, max(0.0, (later.stolen - self.stolen) / total)) if total > 0 else 0.0


async def others_share() -> float:
    """Share of all processors that is busy while the caller sends nothing: the load of other programs."""
    await asyncio.sleep(SETTLE_SECONDS)
    before = ProcessorTimes.now()
    await asyncio.sleep(QUIET_SECONDS)
    return before.busy_share(ProcessorTimes.now())
