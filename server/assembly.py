"""Creates the objects around a running engine and an open registry, and closes them together.

It does not start the engine, so that tests can use it without vLLM.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import torch
from starlette.concurrency import run_in_threadpool

from lora_compose.adapters.admission.admit import AdmissionLimits
from lora_compose.adapters.admission.base_model import BaseShapes
from lora_compose.adapters.registry.registry import Registry
from lora_compose.server.auto_fuse import AutoFuse
from lora_compose.server.benchmarks.runs import Benchmarks, RunLimits
from lora_compose.server.compositions.early_builds import EarlyBuilds
from lora_compose.server.compositions.merges import MergeBuilder, MergedOn
from lora_compose.server.compositions.resolver import Resolver
from lora_compose.server.compositions.served_bases import served_bases
from lora_compose.server.compositions.warnings import CompositionWarnings
from lora_compose.server.config import ServerConfig
from lora_compose.server.engine.frontend.watchdog import EngineWatchdog
from lora_compose.server.fusion.switch import FusionSwitch
from lora_compose.server.http.benchmark_traffic import BenchmarkTraffic
from lora_compose.server.metrics import Metrics
from lora_compose.server.pipeline import CompositionPipeline
from lora_compose.server.registration import Registration, Removal
from lora_compose.server.residency.scheduler import ResidencyScheduler
from lora_compose.server.retention import Keeper
from lora_compose.server.state import AppState
from lora_compose.server.supervision.background import running
from lora_compose.server.tenants.audit import AUDIT_FILE, Audit

if TYPE_CHECKING:
    from lora_compose.server.engine.frontend.engine import Engine


@asynccontextmanager
async def assemble(
    config: ServerConfig, engine: "Engine", registry: Registry, traffic: BenchmarkTraffic, metrics: Metrics
) -> AsyncIterator[AppState]:
    """The application state for a running engine and an open registry."""
    # Admission computes beside the engine. A second thread would wait for a busy core by spinning: the norms
    # of a DoRA adapter then take 30 times as long.
    torch.set_num_threads(1)
    shapes = await run_in_threadpool(BaseShapes.of, engine.model_dir, engine.base)
    limits = AdmissionLimits(
        engine.max_lora_rank,
        engine.dtype,
        config.max_adapter_bytes,
        strict=config.strict,
        modules=engine.lora_modules,
        embeddings=engine.embedding_modules,
        refused_fields=engine.refused_fields,
    )
    bases = await run_in_threadpool(
        served_bases, registry, engine.model_dir, shapes, limits, config.accept_bases
    )
    resolver = Resolver(registry, engine.max_lora_rank, bases, modules=engine.lora_modules)

    async def sweep(held: frozenset[str]) -> None:
        await run_in_threadpool(registry.sweep, held)
        metrics.merge_cache_bytes.set((await run_in_threadpool(registry.merges.size))[1])

    def changed() -> None:
        resolver.registry_changed()
        metrics.registered.set(registry.count())
        metrics.other_base_versions.set(registry.bases.count_others(bases.fingerprints))

    residency = ResidencyScheduler(engine, engine.max_cpu_loras, engine.slots, metrics, sweep)
    changed()
    merges_bound = config.merge_cache_bytes, residency.used_directories
    merged_on = MergedOn(engine.base, engine.model_dir, shapes.fingerprint)
    with MergeBuilder(registry, merged_on, metrics, *merges_bound) as merges:
        await merges.trim()
        fusion = FusionSwitch(engine, residency, metrics)
        early = EarlyBuilds(registry, resolver, merges, metrics, config.merge_cache_bytes)
        pipeline = CompositionPipeline(engine.base, resolver, merges, residency, fusion, engine.other_names)
        # Half of the slots: with more requests in flight, a benchmark would make every answer slower.
        run_limits = RunLimits(in_flight=max(1, engine.slots // 2))
        benchmarks = Benchmarks(config.data_dir / "benchmarks", traffic, run_limits)
        removal = Removal(registry, resolver, residency, metrics)
        audit = Audit(config.data_dir / AUDIT_FILE)
        keep, own = config.keep_versions, bases.base.fingerprint
        keeper = Keeper(registry, removal, fusion, keep, own, metrics, audit)
        state = AppState(
            engine=engine,
            registry=registry,
            resolver=resolver,
            pipeline=pipeline,
            early=early,
            warnings=CompositionWarnings(resolver),
            residency=residency,
            fusion=fusion,
            registration=Registration(
                registry=registry,
                base=shapes,
                limits=limits,
                adapter_roots=config.adapter_roots,
                allow_hf=config.allow_hf,
                metrics=metrics,
                changed=changed,
            ),
            removal=removal,
            keeper=keeper,
            metrics=metrics,
            benchmarks=benchmarks,
            watchdog=EngineWatchdog(engine, config.hang_seconds),
        )
        async with AsyncExitStack() as stack:
            stack.push_async_callback(benchmarks.close)
            stack.push_async_callback(fusion.close)
            await stack.enter_async_context(running(state["watchdog"].watch()))
            await stack.enter_async_context(running(keeper.run()))
            await stack.enter_async_context(running(early.run()))
            if config.auto_fuse:
                auto_fuse = AutoFuse(engine, pipeline, metrics, config.fuse_settings)
                await stack.enter_async_context(running(auto_fuse.run()))
            yield state
