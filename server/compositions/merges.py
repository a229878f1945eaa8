"""Builds merges into the registry's store, each once, in a process outside the engine.

A merge is cached by its content (the digests of its members, weights, method, options), never by names.
"""

import asyncio
import hashlib
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
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


class Abandoned(Exception):
    """The directory of a merge was deleted, because its build was cancelled."""


MayBuild = Callable[[], None]
UNBOUNDED = 1 << 62


@dataclass(frozen=True)
class MergedOn:
    """The base of a server's merges. The result of a DoRA merge depends on its weights."""

    name: str
    directory: Path
    fingerprint: str


class MergeBuilder:
    """Turns a resolved composition into directories that the engine can read. Use it as a context manager."""

    def __init__(
        self,
        registry: Registry,
        base: MergedOn,
        metrics: Metrics,
        max_bytes: int = UNBOUNDED,
        used_directories: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        """`max_bytes` bounds the cached merges. `used_directories` are those that the engine needs now."""
        self._registry = registry
        self._base = base
        self._metrics = metrics
        self._max_bytes = max_bytes
        self._used_directories = used_directories
        self._using: Counter[str] = Counter()
        self._is_over = False
        self._is_trim_outdated = False
        """Whether a merge was released while a trim ran, which may have seen it in use."""
        self._trimming: asyncio.Task[None] | None = None
        self._building: dict[str, asyncio.Task[Path]] = {}
        self._waiting: Counter[str] = Counter()
        """How many wait for a build."""
        self._pool = _merge_process()

    def __enter__(self) -> "MergeBuilder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    @contextmanager
    def using(self, resolved: ResolvedComposition) -> Iterator[None]:
        """Keep the merge of `resolved` on the disk while the context is open."""
        key = "" if resolved.composition.is_stack else merge_key(resolved, self._base)
        self._using[key] += 1
        try:
            yield
        finally:
            self._using[key] -= 1
            if not self._using[key]:
                del self._using[key]
            if self._trimming is not None:
                self._is_trim_outdated = True
            elif self._is_over:
                self._start_trim()

    def _start_trim(self) -> None:
        if self._trimming is None:
            self._is_trim_outdated = False
            self._trimming = asyncio.create_task(self.trim())
            self._trimming.add_done_callback(self._end_trim)

    def _end_trim(self, task: "asyncio.Task[None]") -> None:
        self._trimming = None
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            logger.error("cached merges could not be deleted: %s", error)
        elif self._is_trim_outdated and self._is_over:
            self._start_trim()

    async def trim(self) -> None:
        """Delete the least recently used merges that are over the bound and not in use."""
        directories = self._used_directories()

        def in_use(key: str, digest: str) -> bool:
            return self._using[key] > 0 or any(Path(used).name == digest for used in directories)

        removed, size = await run_in_threadpool(self._registry.merges.trim, self._max_bytes, in_use)
        self._is_over = size > self._max_bytes
        self._metrics.merge_cache_bytes.set(size)
        self._metrics.merge_evictions.inc(removed)
        if removed:
            logger.info("deleted %d cached merges; the others have %d bytes", removed, size)

    async def _find(self, key: str) -> Path | None:
        """The cached merge. A trim that runs now may be deleting it, so wait for its end."""
        if self._trimming is not None:
            await asyncio.wait([self._trimming])
        return await run_in_threadpool(self._registry.merges.find, key)

    async def build(self, resolved: ResolvedComposition, may_build: MayBuild | None = None) -> Servable:
        """Return a stack without a build. Build a merge, or find it in the cache.

        `may_build` is called before a merge is built. It raises if the caller may not build one."""
        if resolved.composition.is_stack:
            return Servable(
                resolved.name, tuple(_stored(version, member.weight) for member, version in resolved.versions)
            )
        merged = Component(str(await self._directory(resolved, may_build)), 1.0, resolved.rank)
        return Servable(
            resolved.name, (StoredAdapter(merged, resolved.ids, resolved.digests, resolved.name),)
        )

    async def report(
        self, resolved: ResolvedComposition, may_build: MayBuild | None = None
    ) -> dict[str, Any] | None:
        """What a merge loses against the exact stack (see `adapters.merging.report`); None for a stack."""
        if resolved.composition.is_stack:
            return None
        await self._directory(resolved, may_build)
        return await run_in_threadpool(self._registry.merges.report, merge_key(resolved, self._base))

    def key(self, resolved: ResolvedComposition) -> str:
        """The key under which the merge of `resolved` is cached."""
        return merge_key(resolved, self._base)

    def is_building(self, key: str) -> bool:
        """Whether it is built now, or next."""
        return key in self._building

    def abandon(self, key: str) -> None:
        """Cancel the build with this key, unless a request waits for it.

        Its directory is deleted. The process that builds it sees that and stops."""
        if not self._waiting[key] and (task := self._building.pop(key, None)) is not None:
            task.cancel()

    async def _directory(self, resolved: ResolvedComposition, may_build: MayBuild | None) -> Path:
        key = merge_key(resolved, self._base)
        if may_build is not None and key not in self._building:
            found = await self._find(key)
            if found is not None:
                return found
            may_build()
        task = self._building.get(key)
        if task is None:
            task = self._building[key] = asyncio.create_task(self._find_or_build(key, resolved))
            task.add_done_callback(lambda task: self._end_build(key, task))
        self._waiting[key] += 1
        try:
            return await asyncio.shield(task)
        finally:
            self._waiting[key] -= 1
            self._waiting += Counter()  # drops the keys at 0

    def _end_build(self, key: str, task: "asyncio.Task[Path]") -> None:
        if self._building.get(key) is task:
            del self._building[key]

    async def _find_or_build(self, key: str, resolved: ResolvedComposition) -> Path:
        found = await self._find(key)
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
            composition = resolved.composition
            report = await self._in_process((
                composition.method,
                inputs,
                composition.options,
                Path(output),
                self._base,
            ))
            path = await run_in_threadpool(
                self._registry.merges.add, key, Path(output), report, sorted(resolved.digests)
            )
        self._start_trim()
        seconds = time.perf_counter() - started
        self._metrics.merge_seconds.observe(seconds)
        logger.info("merged %s in %.2f s", resolved.name, seconds)
        return path

    async def _in_process(self, arguments: tuple[Any, ...]) -> dict[str, Any]:
        """The report of `_merge_files`. Raises BrokenProcessPool if the process is killed; the next merge has
        another one."""
        pool = self._pool
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, _merge_files, arguments)
        except BrokenProcessPool:
            if self._pool is pool:
                self._pool = _merge_process()
            raise


def _merge_process() -> ProcessPoolExecutor:
    # spawn: a fork of a process that has vLLM's threads may deadlock.
    pool = ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn"), initializer=_lower_priority)
    # Importing torch takes seconds. Starting the process now saves the first merge that time.
    pool.submit(os.getpid)
    return pool


def servable_of(version: Version) -> Servable:
    """A single adapter at weight 1."""
    return Servable(version.id, (_stored(version, 1.0),))


def _stored(version: Version, weight: float) -> StoredAdapter:
    component = Component(str(version.directory), weight, version.rank)
    return StoredAdapter(component, frozenset({version.id}), frozenset({version.digest}), version.id)


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

    def stop_if_abandoned(*_: int) -> None:
        if not output.exists():
            raise Abandoned

    stop_if_abandoned()
    merge_base = merge.MergeBase(base.name, base.directory)
    return merge.build(method, members, options, output, merge_base, stop_if_abandoned).to_dict()
