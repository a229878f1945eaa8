"""Removes expired versions, and versions that newer ones supersede (--keep-versions), while the server runs.

The registry decides which versions nothing needs. Each removal is counted, and written to the audit log.
"""

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, field

from starlette.concurrency import run_in_threadpool

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.adapters.registry.registry import Registry
from lora_compose.adapters.registry.store import Version
from lora_compose.server.fusion.switch import FusionSwitch
from lora_compose.server.metrics import Metrics
from lora_compose.server.registration import Removal
from lora_compose.server.tenants.audit import Audit

logger = logging.getLogger(__name__)

LONGEST_PAUSE = 60.0
"""Seconds until the next look, because a version may become free when an alias moves."""
BLOCKED_PAUSE = 1.0
"""Seconds until the next look if a version expired and something needs it."""


@dataclass(frozen=True)
class Keeper:
    """Applies the bounds. `keep` is --keep-versions, and `base` the fingerprint of this server's base."""

    registry: Registry
    removal: Removal
    fusion: FusionSwitch
    keep: int | None
    base: str
    metrics: Metrics
    audit: Audit
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _again: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Remove versions when they expire, until cancelled."""
        while True:
            self._again.clear()
            try:
                await self.apply()
                pause = await self._pause()
            except LoraComposeError as error:
                logger.warning("expired versions could not be removed: %s", error.message)
                pause = BLOCKED_PAUSE
            with suppress(TimeoutError):
                await asyncio.wait_for(self._again.wait(), pause)

    async def registered(self, replacing: Version | None = None) -> None:
        """A version was registered: remove those that it supersedes, and look at its expiry.

        `replacing` is the new version if it takes the place of the one before, unless --keep-versions says
        how many stay."""
        self._again.set()
        if self.keep is not None:
            await self.apply()
        elif replacing is not None:
            find = self.registry.retention.replaced_by
            await self.apply(await run_in_threadpool(find, replacing, self.base))

    async def apply(self, replaced: Version | None = None) -> None:
        """Remove what may be removed now. Returns when the files are deleted that nothing uses."""
        async with self._lock:
            fused = self.fusion.fused
            spare = frozenset() if fused is None else fused.versions
            retire = self.registry.retention.retire
            retired = await run_in_threadpool(retire, self.keep, self.base, spare, replaced)
            if not retired:
                return
            for one in retired:
                self.metrics.retired_versions.labels(one.reason).inc()
                version = one.version
                self.audit.record_removal(version.name, version.number, version.digest, one.reason)
            await self.removal.finish([one.version for one in retired])

    async def _pause(self) -> float:
        due = await run_in_threadpool(self.registry.retention.next_expiry)
        if due is None:
            return LONGEST_PAUSE
        left = due - self.registry.retention.clock()
        return BLOCKED_PAUSE if left <= 0 else min(left, LONGEST_PAUSE)
