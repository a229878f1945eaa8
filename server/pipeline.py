"""From a request to a composition that the engine serves: resolve, build, hold, check the fused base.

Generation, `/v1/fusion`, `/v1/compositions`, auto-fuse and the restore after a restart all go this way.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, overload

from lora_compose.adapters.composition.composition import Composition
from lora_compose.server.compositions.from_request import (
    CompositionFields,
    composition_from_body,
    composition_of,
)
from lora_compose.server.compositions.merges import MergeBuilder
from lora_compose.server.compositions.resolver import ResolvedComposition, Resolver
from lora_compose.server.fusion.switch import FusionSwitch
from lora_compose.server.http.tracing import step
from lora_compose.server.residency.scheduler import ResidencyScheduler
from lora_compose.server.tenants.caller import Caller


@dataclass(frozen=True)
class CompositionPipeline:
    """`base` is the served model's name. Without a caller, the server itself asks: it sees every adapter and
    has no quotas."""

    base: str
    resolver: Resolver
    merges: MergeBuilder
    residency: ResidencyScheduler
    fusion: FusionSwitch

    @overload
    def resolve(self, asked: Composition, caller: Caller | None = None) -> ResolvedComposition: ...

    @overload
    def resolve(
        self, asked: dict[str, Any] | CompositionFields, caller: Caller | None = None
    ) -> ResolvedComposition | None: ...

    def resolve(
        self, asked: dict[str, Any] | CompositionFields | Composition, caller: Caller | None = None
    ) -> ResolvedComposition | None:
        """The versions that a body, its fields or a composition stand for now; None for the plain base.

        Raises InvalidRequest, NotFound("model_not_found") or Unservable("rank_too_large").
        """
        composition = asked if isinstance(asked, Composition) else self._asked(asked, caller)
        if composition is None:
            return None
        return self.resolver.resolve(composition, None if caller is None else caller.sees)

    def _asked(self, asked: dict[str, Any] | CompositionFields, caller: Caller | None) -> Composition | None:
        saved = self.resolver.saved if caller is None else caller.saved(self.resolver.saved)
        if isinstance(asked, CompositionFields):
            return composition_of(asked, self.base, saved)
        return composition_from_body(asked, self.base, saved)

    @asynccontextmanager
    async def ready(self, resolved: ResolvedComposition | None, caller: Caller) -> AsyncIterator[None]:
        """Built, in host memory and in a slot for as long as the context is open.

        Raises QuotaExceeded where the caller may not build what is missing, and what building raises.
        """
        async with AsyncExitStack() as stack:
            servable = None
            if resolved is not None:
                with step("merge"):
                    servable = await self.merges.build(resolved, caller.build)
                with step("prepare"):
                    await stack.enter_async_context(self.residency.hold(servable, may_build=caller.build))
            self.fusion.check(servable)
            yield

    async def fuse(self, resolved: ResolvedComposition) -> None:
        """Fold it into the base. Raises what building and `Fusion.fuse` raise."""
        await self.fusion.fuse(await self.merges.build(resolved))

    async def pin(self, resolved: ResolvedComposition) -> None:
        """Keep one adapter in host memory. Raises what `Residency.pin` raises."""
        await self.residency.pin(await self.merges.build(resolved))
