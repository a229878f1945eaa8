"""The type of `request.state`: the objects around the running engine.

Imports are for type checking only: a module that names `AppState` does not import the whole server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from lora_compose.adapters.registry.registry import Registry
    from lora_compose.server.benchmarks.runs import Benchmarks
    from lora_compose.server.compositions.early_builds import EarlyBuilds
    from lora_compose.server.compositions.resolver import Resolver
    from lora_compose.server.compositions.warnings import CompositionWarnings
    from lora_compose.server.engine.frontend.engine import Engine
    from lora_compose.server.engine.frontend.watchdog import EngineWatchdog
    from lora_compose.server.fusion.switch import FusionSwitch
    from lora_compose.server.metrics import Metrics
    from lora_compose.server.pipeline import CompositionPipeline
    from lora_compose.server.registration import Registration, Removal
    from lora_compose.server.residency.scheduler import ResidencyScheduler
    from lora_compose.server.retention import Keeper


class AppState(TypedDict):
    """The objects of one engine. `AppSwitch` replaces all of them when the engine is replaced."""

    engine: Engine
    registry: Registry
    resolver: Resolver
    pipeline: CompositionPipeline
    early: EarlyBuilds
    warnings: CompositionWarnings
    residency: ResidencyScheduler
    fusion: FusionSwitch
    registration: Registration
    removal: Removal
    keeper: Keeper
    metrics: Metrics
    benchmarks: Benchmarks
    watchdog: EngineWatchdog
