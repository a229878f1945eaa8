"""Fuses a composition into the running base weights, and restores them.

While `c` is fused, the workers serve a request for `x` as the residual `x − c`, the base as `−c`, and `c`
itself without any LoRA work. A switch does not change names. Requests in flight are paused, their KV cache is
dropped and computed again with the new weights, and they continue. Restoring loads the checkpoint again and
never subtracts, so it gives the base weights bit for bit.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, Protocol

from lora_compose.adapters.errors import Code, Conflict, StorageUnavailable, Unservable
from lora_compose.server.compositions.servable import Servable
from lora_compose.server.engine.errors import EngineDied
from lora_compose.server.engine.spec import Component, combined
from lora_compose.server.metrics import Metrics
from lora_compose.server.residency.scheduler import ResidencyScheduler

logger = logging.getLogger(__name__)

State = Literal["base", "fusing", "fused", "restoring", "failed"]
BUSY_MESSAGES: dict[State, str] = {
    "fusing": "A composition is being fused now. Wait until that has finished.",
    "restoring": "The base is being restored now. Wait until that has finished.",
    "failed": "The base weights are lost after a failed switch. Restart the server.",
}


class FusingEngine(Protocol):
    """What fusion needs of the engine. `load_base` returns the seconds that generation was paused.

    If it raises, some weights may be old and some new, and generation may still be paused.
    """

    @property
    def base(self) -> str: ...

    @property
    def max_lora_rank(self) -> int: ...

    @property
    def max_loras(self) -> int: ...

    @property
    def runtime_weights(self) -> bool: ...

    async def why_not_foldable(self, components: Sequence[Component]) -> str | None: ...

    async def load_base(self, components: Sequence[Component], progress: Path) -> float: ...

    async def stop_serving(self) -> None: ...


@dataclass(frozen=True)
class BaseSwitch:
    """The durations of the last switch that succeeded."""

    seconds: float
    """From the request to the answer."""
    stalled_seconds: float
    """The part of `seconds` in which generation was paused."""


class FusionSwitch:
    """Owner of the base weights. It runs on the event loop only."""

    def __init__(self, engine: FusingEngine, residency: ResidencyScheduler, metrics: Metrics) -> None:
        self.state: State = "base"
        self.fused: Servable | None = None
        self.last: BaseSwitch | None = None
        self._engine = engine
        self._residency = residency
        self._metrics = metrics
        self._reservation = AsyncExitStack()
        self._progress: Path | None = None
        self._target: Servable | None = None
        self._previous: State = "base"

    def check(self, wanted: Servable | None) -> None:
        """Refuse `wanted` (None: the base) if it cannot be served beside the fused composition.

        Raises Unservable("rank_too_large") if its residual does not fit, and StorageUnavailable if the base
        weights were lost in a failed switch.
        """
        if self.state == "failed":
            raise StorageUnavailable(
                Code.BASE_LOST,
                "The base weights could not be restored after a failed switch. Restart the server.",
            )
        fused = self._target if self.state == "fusing" else self.fused
        if fused is None or wanted is None or self._engine.runtime_weights:
            return
        rank = sum(component.rank for component in combined(wanted.components, fused.components))
        if rank > self._engine.max_lora_rank:
            raise Unservable(
                Code.RANK_TOO_LARGE,
                f"{wanted.name} needs rank {rank} while {fused.name} is fused, but this server's "
                f"max_lora_rank is {self._engine.max_lora_rank}. Restore the base with DELETE /v1/fusion.",
                "model",
            )

    async def fuse(self, servable: Servable) -> None:
        """Fold `servable` into the base weights, in place of the composition that is fused now.

        Raises Unservable("not_fusable"), Conflict("fusion_busy") during another switch, and any exception of
        loading. After such an exception the base is plain again, or it is lost and `check` raises.
        """
        if self.fused is None or self.fused.name != servable.name or self.state != "fused":
            await self._switch("fusing", servable)

    async def restore(self) -> None:
        """Restore the plain base weights, bit for bit. Does nothing if they are plain. Raises like `fuse`."""
        if self.state != "base":
            await self._switch("restoring", None)

    async def close(self) -> None:
        """Release the fused adapters. Called when the engine ends; `fused` stays, for the next engine."""
        await self._reservation.aclose()

    async def _switch(self, transition: State, servable: Servable | None) -> None:
        if self.state not in ("base", "fused"):
            raise Conflict(Code.FUSION_BUSY, BUSY_MESSAGES[self.state])
        self._previous, self.state, self._target = self.state, transition, servable
        # The caller may be cancelled during a switch. The switch must still be completed.
        await asyncio.shield(asyncio.create_task(self._carry_out(transition, servable)))

    async def _carry_out(self, transition: State, servable: Servable | None) -> None:
        started = time.perf_counter()
        reservation = AsyncExitStack()
        try:
            if servable is not None:
                await self._check_fusable(servable)
                # Every residual needs these adapters, so they stay in host memory while they are fused.
                await reservation.enter_async_context(self._residency.reserve(servable))
            failures = self._metrics.switch_failures.labels(transition)
            with self._metrics.switches_in_progress.track_inprogress(), failures.count_exceptions():
                stalled = await self._load(servable)
        except BaseException:
            await reservation.aclose()
            if self.state == transition:  # it was refused before any weights were loaded
                self._set_state(self._previous, self.fused)
            raise
        await self._reservation.aclose()
        self._reservation = reservation
        self._set_state("base" if servable is None else "fused", servable)
        self.last = BaseSwitch(time.perf_counter() - started, stalled)
        self._metrics.switch_seconds.labels(transition).observe(stalled)
        name = self._engine.base if servable is None else servable.name
        logger.info("%s %s: generation was paused for %.2f s", transition, name, stalled)

    async def _check_fusable(self, servable: Servable) -> None:
        reason = await self._engine.why_not_foldable(servable.components)
        if reason is None and not self._engine.runtime_weights:
            reason = self._why_slots_too_few()
        if reason is not None:
            raise Unservable(Code.NOT_FUSABLE, f"{servable.name} cannot be fused: {reason}", "model")

    def _why_slots_too_few(self) -> str | None:
        """Why residuals would not fit, or None. A residual without a slot that fits would end the engine."""
        if self._engine.max_loras < 2:
            return "the base then needs a slot of its own, so --max-loras must be at least 2"
        try:
            for wanted in self._residency.wanted():
                self.check(wanted)
        except Unservable as error:
            return error.message
        return None

    async def _load(self, servable: Servable | None) -> float:
        """Load the base weights, and return the seconds that generation was paused.

        If that fails, load the plain base, or stop serving."""
        with TemporaryDirectory(prefix="lora-compose-fusion-") as directory:
            self._progress = Path(directory) / "progress"
            try:
                return await self._engine.load_base(servable.components if servable else (), self._progress)
            except EngineDied:
                raise  # the next engine starts with the plain base
            except BaseException:
                await self._recover(self._progress)
                raise
            finally:
                self._progress = None

    async def _recover(self, progress: Path) -> None:
        logger.exception("the base weights could not be loaded: the plain base is loaded again")
        state: State = "failed"
        try:
            await self._engine.load_base((), progress)
            state = "base"
        except Exception:
            logger.exception("the base weights are lost: no more requests are served")
            await self._engine.stop_serving()
        finally:
            await self._reservation.aclose()
            self._set_state(state, None)

    def _set_state(self, state: State, fused: Servable | None) -> None:
        self.state, self.fused, self._target = state, fused, None
        self._metrics.fused.set(state == "fused")

    @property
    def progress(self) -> float | None:
        """The share of the checkpoint that is loaded, from 0 to 1. None if no switch is running."""
        if self._progress is None:
            return None
        try:
            return float(self._progress.read_text() or 0)
        except (FileNotFoundError, ValueError):
            return 0.0
