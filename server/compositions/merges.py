"""Builds merges into the registry's store, each once, in a process outside the engine.

A merge is cached by its content (the digests of its members, weights, method, options), never by names.
"""

import asyncio
import hashlib
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

from starlette.concurrency import run_in_threadpool

from lora_compose.adapters.registry.registry import Registry
from lora_compose.adapters.registry.store import Version
from lora_compose.server.compositions.resolver import ResolvedComposition
from lora_compose.server.compositions.servable import Servable, StoredAdapter
from lora_compose.server.engine.spec import Component
from lora_compose.server.metrics import Metrics

logger = logging.getLogger(__name__)

MayBuild = Callable[[], None]


@dataclass(frozen=True)
class MergedOn:
    """The base of a server's merges. The result of a DoRA merge depends on its weights."""

    name: str
    directory: Path
    fingerprint: str


class MergeBuilder:
    """Turns a resolved composition into directories that the engine can read. Use it as a context manager."""

    def __init__(self, registry: Registry, base: MergedOn, metrics: Metrics) -> None:
        self._registry = registry
        self._base = base
        self._metrics = metrics
        self._building: dict[str, asyncio.Task[Path]] = {}
        # spawn: a fork of a process that has vLLM's threads may deadlock.
        self._pool = ProcessPoolExecutor(
            max_workers=1, mp_context=get_context("spawn"), initializer=_lower_priority
        )
        # Importing torch takes seconds. Starting the process now saves the first merge that time.
        self._pool.submit(os.getpid)

    def __enter__(self) -> "MergeBuilder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def build(self, resolved: ResolvedComposition, may_build: MayBuild | None = None) -> Servable:
        """Return a stack without a build. Build a merge, or find it in the cache.

        `may_build` is called before a merge is built. It raises if the caller may not build one."""
        if resolved.composition.is_stack:
            return Servable(
                resolved.name, tuple(_stored(version, member.weight) for member, version in resolved.versions)
            )
        merged = Component(str(await self._directory(resolved, may_build)), 1.0, resolved.rank)
        return Servable(resolved.name, (StoredAdapter(merged, resolved.ids, resolved.digests),))

    async def report(
        self, resolved: ResolvedComposition, may_build: MayBuild | None = None
    ) -> dict[str, Any] | None:
        """What a merge loses against the exact stack (see `adapters.merging.report`); None for a stack."""
        if resolved.composition.is_stack:
            return None
        await self._directory(resolved, may_build)
        return await run_in_threadpool(self._registry.cached_merge_report, merge_key(resolved, self._base))

    async def _directory(self, resolved: ResolvedComposition, may_build: MayBuild | None) -> Path:
        key = merge_key(resolved, self._base)
        if may_build is not None and key not in self._building:
            found = await run_in_threadpool(self._registry.cached_merge, key)
            if found is not None:
                return found
            may_build()
        task = self._building.get(key)
        if task is None:
            task = self._building[key] = asyncio.create_task(self._find_or_build(key, resolved))
            task.add_done_callback(lambda _: self._building.pop(key, None))
        return await asyncio.shield(task)

    async def _find_or_build(self, key: str, resolved: ResolvedComposition) -> Path:
        found = await run_in_threadpool(self._registry.cached_merge, key)
        if found is not None:
            return found
        with (
            self._metrics.merges_in_progress.track_inprogress(),
            self._metrics.merge_failures.count_exceptions(),
        ):
            return await self._merge(key, resolved)

    async def _merge(self, key: str, resolved: ResolvedComposition) -> Path:
        started = time.perf_counter()
        inputs = [(version.directory, member.weight) for member, version in resolved.versions]
        with TemporaryDirectory(dir=self._registry.staging_dir) as output:
            loop = asyncio.get_running_loop()
            report = await loop.run_in_executor(
                self._pool,
                _merge_files,
                (
                    resolved.composition.method,
                    inputs,
                    resolved.composition.options,
                    Path(output),
                    self._base,
                ),
            )
            path = await run_in_threadpool(
                self._registry.cache_merge, key, Path(output), report, sorted(resolved.digests)
            )
        seconds = time.perf_counter() - started
        self._metrics.merge_seconds.observe(seconds)
        logger.info("merged %s in %.2f s", resolved.name, seconds)
        return path


def servable_of(version: Version) -> Servable:
    """A single adapter at weight 1."""
    return Servable(version.id, (_stored(version, 1.0),))


def _stored(version: Version, weight: float) -> StoredAdapter:
    component = Component(str(version.directory), weight, version.rank)
    return StoredAdapter(component, frozenset({version.id}), frozenset({version.digest}))


def merge_key(resolved: ResolvedComposition, base: MergedOn) -> str:
    """sha256 of the members' digests and weights, the method, its options and the base's fingerprint."""
    members = sorted((version.digest, member.weight) for member, version in resolved.versions)
    text = repr((members, resolved.composition.method, resolved.composition.options, base.fingerprint))
    return hashlib.sha256(text.encode()).hexdigest()


def _lower_priority() -> None:
    """Keep merges from slowing the engine. Runs in the pool's process, like `_merge_files`."""
    import torch

    os.nice(10)
    torch.set_num_threads(1)


def _merge_files(arguments: tuple[Any, ...]) -> dict[str, Any]:
    from lora_compose.adapters.merging import merge  # it imports torch, which only this process needs

    method, inputs, options, output, base = arguments
    members = [merge.MergeInput(directory, weight) for directory, weight in inputs]
    return merge.build(method, members, options, output, merge.MergeBase(base.name, base.directory)).to_dict()
