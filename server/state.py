"""What a request finds in `request.state`: the objects around the running engine.

Types only, so that a module that names `AppState` does not import the whole server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from adapters.registry import Registry
    from server.benchmark_runs import Benchmarks
    from server.engine.engine import Engine
    from server.fusion import Fusion
    from server.metrics import Metrics
    from server.pipeline import CompositionPipeline
    from server.pulse import Pulse
    from server.registration import Registration
    from server.removal import Removal
    from server.residency import Residency
    from server.resolver import Resolver


class AppState(TypedDict):
    """One set for each engine. `Front` replaces it when the engine is replaced."""

    engine: Engine
    registry: Registry
    resolver: Resolver
    pipeline: CompositionPipeline
    residency: Residency
    fusion: Fusion
    registration: Registration
    removal: Removal
    metrics: Metrics
    benchmarks: Benchmarks
    pulse: Pulse
