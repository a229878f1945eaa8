"""State that must survive a restart of the engine or the server: pins and the fused composition."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from lora_compose.adapters.composition.grammar import parse
from lora_compose.adapters.errors import LoraComposeError
from lora_compose.adapters.registry.registry import Registry
from lora_compose.server.compositions.resolver import ResolvedComposition
from lora_compose.server.engine.errors import EngineDied
from lora_compose.server.pipeline import CompositionPipeline
from lora_compose.server.state import AppState

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineState:
    """Pinned versions by id, and the canonical name of the composition that is fused into the base."""

    pins: tuple[str, ...] = ()
    fused: str | None = None

    @classmethod
    def kept(cls, registry: Registry) -> "EngineState":
        """The state that the last process recorded, for the first engine of this one."""
        return cls(tuple(registry.kept.pins()), registry.kept.fused())

    @classmethod
    def capture(cls, state: AppState) -> "EngineState":
        """The state of the engine that runs now."""
        fused = state["fusion"].fused
        pins = tuple(sorted(state["residency"].pinned_ids()))
        return cls(pins, None if fused is None else fused.name)

    async def restore(self, state: AppState) -> None:
        """Pin and fuse again in a new engine. A failure is logged, and the rest is still restored.

        Raises EngineDied, so that the next engine gets all of it.
        """
        pipeline = state["pipeline"]
        for reference in self.pins:
            await _again(reference, "pinned", pipeline, pipeline.pin)
        if self.fused is not None:
            await _again(self.fused, "fused", pipeline, pipeline.fuse)


async def _again(
    name: str,
    what: str,
    pipeline: CompositionPipeline,
    act: Callable[[ResolvedComposition], Awaitable[None]],
) -> None:
    try:
        await act(await run_in_threadpool(pipeline.resolve, parse(name)))
    except EngineDied:
        raise
    except LoraComposeError as error:
        logger.warning("%s could not be %s again: %s", name, what, error.message)
    except Exception:  # any failure here must not keep the engine from starting
        logger.exception("%s could not be %s again", name, what)
