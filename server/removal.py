"""Takes adapters out: unnamed at once, gone from the engine and the disk when nobody uses them any more."""

from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from adapters.registry import Registry
from server.metrics import Metrics
from server.residency import Residency
from server.resolver import Resolver


@dataclass(frozen=True)
class Removal:
    """The way out."""

    registry: Registry
    resolver: Resolver
    residency: Residency
    metrics: Metrics

    async def remove(self, name: str, ref: str | None, *, cascade: bool) -> None:
        """Raises NotFound, or Conflict("in_use") while a saved composition needs it and `cascade` is off."""
        gone = await run_in_threadpool(self.registry.remove, name, ref, cascade=cascade)
        self.resolver.registry_changed()
        left = set(self.registry.names())
        self.metrics.registered.set(len(left))
        for removed in {version.name for version in gone} - left:
            self.metrics.adapter_requests.forget(removed)
        await self.residency.withdraw(frozenset(version.id for version in gone))
