"""Makes a flood of refusals wait for them, so that it costs those who are served next to nothing.

Whoever sends as soon as it is refused gets as many refusals a second as it has connections, instead of as
many as the server could make with all of its time.
"""

import asyncio
from dataclasses import dataclass, field

from lora_compose.server.tenants.quotas import TokenBucket

AT_ONCE_A_MINUTE = 60
"""Refusals of one key, or of all who have none, that nobody has to wait for."""
MOST_WAITING = 512
"""Connections that may be kept open for this; who comes then is refused at once."""


@dataclass
class RefusalDelay:
    """Of one server."""

    seconds: float = 1.0
    waiting: int = 0
    _buckets: dict[str | None, TokenBucket] = field(default_factory=dict)

    async def slow_down(self, key_id: str | None) -> None:
        """Returns when a refusal may be sent."""
        bucket = self._buckets.setdefault(key_id, TokenBucket(AT_ONCE_A_MINUTE, 60.0))
        if not bucket.wait(1):
            bucket.take(1)
        elif self.waiting < MOST_WAITING:
            self.waiting += 1
            try:
                await asyncio.sleep(self.seconds)
            finally:
                self.waiting -= 1
