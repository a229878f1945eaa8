"""What is the engine's own and was asked for by people: put back into the one that takes its place."""

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
    """Pinned versions by id, and what is folded into the base."""

    pins: tuple[str, ...] = ()
    fused: Servable | None = None

    @classmethod
    def of(cls, state: AppState) -> "EngineState":
        """As it is now."""
        return cls(tuple(sorted(state["residency"].pinned_ids())), state["fusion"].fused)

    async def put_back(self, state: AppState) -> None:
        """What cannot be had any more is said in the log, and keeps nothing else from being put back.

        Raises EngineDied: the next one is to have it all.
        """
        pipeline = state["pipeline"]
        for reference in self.pins:
            try:
                resolved = await run_in_threadpool(pipeline.resolve, parse(reference))
                await pipeline.pin(resolved)
            except EngineDied:
                raise
            except Exception:  # whatever it is, the engine must come up
                logger.exception("%s could not be pinned again", reference)
        if self.fused is not None:
            try:
                await pipeline.fusion.fuse(self.fused)
            except EngineDied:
                raise
            except Exception:
                logger.exception("%s could not be fused again", self.fused.name)
