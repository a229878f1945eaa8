"""State that must survive an engine restart: pinned adapters and the fused composition."""

import logging
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from lora_compose.adapters.composition.grammar import parse
from lora_compose.server.compositions.servable import Servable
from lora_compose.server.engine.errors import EngineDied
from lora_compose.server.state import AppState

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineState:
    """Pinned versions by id, and the composition that is fused into the base."""

    pins: tuple[str, ...] = ()
    fused: Servable | None = None

    @classmethod
    def capture(cls, state: AppState) -> "EngineState":
        """The state of the engine that runs now."""
        return cls(tuple(sorted(state["residency"].pinned_ids())), state["fusion"].fused)

    async def restore(self, state: AppState) -> None:
        """Pin and fuse again in a new engine. A failure is logged, and the rest is still restored.

        Raises EngineDied, so that the next engine gets all of it.
        """
        pipeline = state["pipeline"]
        for reference in self.pins:
            try:
                resolved = await run_in_threadpool(pipeline.resolve, parse(reference))
                await pipeline.pin(resolved)
            except EngineDied:
                raise
            except Exception:  # any failure here must not keep the engine from starting
                logger.exception("%s could not be pinned again", reference)
        if self.fused is not None:
            try:
                await pipeline.fusion.fuse(self.fused)
            except EngineDied:
                raise
            except Exception:
                logger.exception("%s could not be fused again", self.fused.name)
