"""Merges, built outside the engine in a process of their own, once, into the registry's store.

A merge is cached by what it is made of (the bytes of its members, weights, method, options), never by names.
"""

import asyncio
import hashlib
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
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


class MergeBuilder:
    """Turns a pinned composition into directories the engine can read. Open it as a context."""

    def __init__(self, registry: Registry, base: str, metrics: Metrics) -> None:
        self._registry = registry
        self._base = base
        self._metrics = metrics
        self._building: dict[str, asyncio.Task[Path]] = {}
        # spawn: a fork of a process with vLLM's threads in it may deadlock.
        self._pool = ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn"), initializer=_be_nice)
        # Importing torch takes seconds: start now, so that the first merge need not wait for it.
        self._pool.submit(os.getpid)

    def __enter__(self) -> "MergeBuilder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def servable(self, pinned: ResolvedComposition, may_build: MayBuild | None = None) -> Servable:
        """A stack as it is; a merge built first, or found built. `may_build` raises where it may not be."""
        if pinned.composition.is_stack:
            return Servable(pinned.name, tuple(_member(version, m.weight) for m, version in pinned.versions))
        merged = Component(str(await self._directory(pinned, may_build)), 1.0, pinned.rank)
        return Servable(pinned.name, (StoredAdapter(merged, pinned.ids, pinned.digests),))

    async def report(
        self, pinned: ResolvedComposition, may_build: MayBuild | None = None
    ) -> dict[str, Any] | None:
        """What a merge loses against the exact stack (see `lora_compose.adapters.merging.report`); None for a stack."""
        if pinned.composition.is_stack:
            return None
        await self._directory(pinned, may_build)
        return await run_in_threadpool(self._registry.cached_merge_report, merge_key(pinned))

    async def _directory(self, pinned: ResolvedComposition, may_build: MayBuild | None) -> Path:
        key = merge_key(pinned)
        if may_build is not None and key not in self._building:
            found = await run_in_threadpool(self._registry.cached_merge, key)
            if found is not None:
                return found
            may_build()
        task = self._building.get(key)
        if task is None:
            task = self._building[key] = asyncio.create_task(self._find_or_build(key, pinned))
            task.add_done_callback(lambda _: self._building.pop(key, None))
        return await asyncio.shield(task)

    async def _find_or_build(self, key: str, pinned: ResolvedComposition) -> Path:
        found = await run_in_threadpool(self._registry.cached_merge, key)
        if found is not None:
            return found
        with (
            self._metrics.merges_in_progress.track_inprogress(),
            self._metrics.merge_failures.count_exceptions(),
        ):
            return await self._build(key, pinned)

    async def _build(self, key: str, pinned: ResolvedComposition) -> Path:
        started = time.perf_counter()
        ingredients = [(version.directory, m.weight) for m, version in pinned.versions]
        with TemporaryDirectory(dir=self._registry.staging_dir) as output:
            loop = asyncio.get_running_loop()
            report = await loop.run_in_executor(
                self._pool,
                _merge,
                (
                    pinned.composition.method,
                    ingredients,
                    pinned.composition.options,
                    Path(output),
                    self._base,
                ),
            )
            path = await run_in_threadpool(
                self._registry.cache_merge, key, Path(output), report, sorted(pinned.digests)
            )
        seconds = time.perf_counter() - started
        self._metrics.merge_seconds.observe(seconds)
        logger.info("merged %s in %.2f s", pinned.name, seconds)
        return path


def servable_of(version: Version) -> Servable:
    """One adapter by itself."""
    return Servable(version.id, (_member(version, 1.0),))


def _member(version: Version, weight: float) -> StoredAdapter:
    component = Component(str(version.directory), weight, version.rank)
    return StoredAdapter(component, frozenset({version.id}), frozenset({version.digest}))


def merge_key(pinned: ResolvedComposition) -> str:
    """sha256 over the members' bytes and weights, the method and its options."""
    members = sorted((version.digest, member.weight) for member, version in pinned.versions)
    text = repr((members, pinned.composition.method, pinned.composition.options))
    return hashlib.sha256(text.encode()).hexdigest()


def _be_nice() -> None:
    """A merge must not take the cores that decode. Runs in the pool's process, as `_merge` does."""
    import torch

    os.nice(10)
    torch.set_num_threads(1)


def _merge(arguments: tuple[Any, ...]) -> dict[str, Any]:
    from lora_compose.adapters.merging import merge  # imports torch, which only this process needs

    method, ingredients, options, output, base = arguments
    parts = [merge.MergeInput(directory, weight) for directory, weight in ingredients]
    return merge.build(method, parts, options, output, base).to_dict()
