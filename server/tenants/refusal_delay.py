"""Delays refusals when there are many, so that they hardly slow down other requests.

A client that sends again as soon as it is refused then gets one refusal per second and connection. Without
the delay, the server could spend all of its time on refusals.
"""

import asyncio
from dataclasses import dataclass, field

from lora_compose.server.tenants.quotas import TokenBucket

IMMEDIATE_PER_MINUTE = 60
"""Refusals per minute without a delay, for each key and for all requests without a valid key together."""
MAX_WAITING = 512
"""The most refusals that wait at the same time. Further ones are sent at once."""


@dataclass
class RefusalDelay:
    """The delay of one server's refusals: `seconds` each, once a key has used up the immediate ones."""

    seconds: float = 1.0
    waiting: int = 0
    _buckets: dict[str | None, TokenBucket] = field(default_factory=dict)

    async def wait(self, key_id: str | None) -> None:
        """Return when the refusal may be sent."""
        bucket = self._buckets.setdefault(key_id, TokenBucket(IMMEDIATE_PER_MINUTE, 60.0))
        if not bucket.wait(1):
            bucket.take(1)
        elif self.waiting < MAX_WAITING:
            self.waiting += 1
            try:
                await asyncio.sleep(self.seconds)
            finally:
                self.waiting -= 1
