"""The way from a request to a composition that is ready in the engine: resolve, build, hold, check the base.

Generation, `/v1/fusion`, `/v1/compositions`, auto-fuse and the restore after a restart all use it.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
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
    """`base` is the served name of the base model. A caller of None is the server itself: it sees every
    adapter and has no quotas."""

    base: str
    resolver: Resolver
    merges: MergeBuilder
    residency: ResidencyScheduler
    fusion: FusionSwitch
    other_names: tuple[str, ...] = ()
    """Further names of the base in requests."""

    @overload
    def resolve(self, source: Composition, caller: Caller | None = None) -> ResolvedComposition: ...

    @overload
    def resolve(
        self, source: dict[str, Any] | CompositionFields, caller: Caller | None = None
    ) -> ResolvedComposition | None: ...

    def resolve(
        self, source: dict[str, Any] | CompositionFields | Composition, caller: Caller | None = None
    ) -> ResolvedComposition | None:
        """The versions that a request body, its fields or a composition stand for now; None for the base.

        Raises InvalidRequest, NotFound("model_not_found") or Unservable("rank_too_large").
        """
        composition = source if isinstance(source, Composition) else self._read(source, caller)
        if composition is None:
            return None
        return self.resolver.resolve(composition, None if caller is None else caller.sees)

    def _read(self, source: dict[str, Any] | CompositionFields, caller: Caller | None) -> Composition | None:
        saved = self.resolver.saved if caller is None else caller.saved(self.resolver.saved)
        if isinstance(source, CompositionFields):
            model = self._with_base(source.model)
            return composition_of(source.model_copy(update={"model": model}), self.base, saved)
        if self.other_names and isinstance(source.get("model"), str):
            source = {**source, "model": self._with_base(source["model"])}
        return composition_from_body(source, self.base, saved)

    def _with_base(self, model: str) -> str:
        """`model` with the first name of the base in place of another one."""
        for name in self.other_names:
            if model == name or model.startswith(f"{name}:"):
                return self.base + model.removeprefix(name)
        return model

    @asynccontextmanager
    async def ready(self, resolved: ResolvedComposition | None, caller: Caller) -> AsyncIterator[None]:
        """Build the composition and hold it in host memory and in a slot while the context is open.

        Raises QuotaExceeded if something has to be built and the caller may not build it, and the errors of
        the build.
        """
        async with AsyncExitStack() as stack:
            servable = None
            if resolved is not None:
                stack.enter_context(self.using(resolved))
                with step("merge"):
                    servable = await self.merges.build(resolved, caller.build)
                with step("prepare"):
                    await stack.enter_async_context(self.residency.hold(servable, may_build=caller.build))
            self.fusion.check(servable)
            yield

    @contextmanager
    def using(self, resolved: ResolvedComposition) -> Iterator[None]:
        """Keep the files that it needs on the disk while the context is open."""
        with self.residency.using(resolved.digests), self.merges.using(resolved):
            yield

    async def fuse(self, resolved: ResolvedComposition) -> None:
        """Fold it into the base weights. Raises the errors of the build and of `FusionSwitch.fuse`."""
        with self.using(resolved):
            await self.fusion.fuse(await self.merges.build(resolved))

    async def pin(self, resolved: ResolvedComposition) -> None:
        """Keep one adapter in host memory. Raises the errors of `ResidencyScheduler.pin`."""
        with self.using(resolved):
            await self.residency.pin(await self.merges.build(resolved))
