"""Delays refusals when there are many, so that they hardly slow down other requests.

A client that sends again as soon as it is refused then gets one refusal per second and connection, and on all
connections at most `REFUSALS_PER_SECOND`. Without the delay, the server could spend all its time on refusals.
"""

import asyncio
from dataclasses import dataclass, field

from lora_compose.server.http.pace import Pace
from lora_compose.server.tenants.quotas import TokenBucket

IMMEDIATE_PER_MINUTE = 60
"""Refusals per minute without a delay, for each key and for all requests without a valid key together."""


@dataclass
class _Refused:
    """The refusals of one key."""

    immediate: TokenBucket = field(default_factory=lambda: TokenBucket(IMMEDIATE_PER_MINUTE, 60.0))
    later: Pace = field(default_factory=Pace)


@dataclass
class RefusalDelay:
    """The delay of one server's refusals: `seconds` or more, once a key has used up the immediate ones."""

    seconds: float = 1.0
    _keys: dict[str | None, _Refused] = field(default_factory=dict)

    async def wait(self, key_id: str | None) -> None:
        """Return when the refusal may be sent."""
        refused = self._keys.setdefault(key_id, _Refused())
        if not refused.immediate.wait(1):
            refused.immediate.take(1)
        elif self.seconds:
            await asyncio.sleep(refused.later.delay(self.seconds))
