"""What is folded into the running base, and the switch between two worlds.

While `c` is fused, the workers serve a request for `x` as the residual `x − c`, the base as `−c`, and `c`
itself without any LoRA work. Names do not change at the switch: requests in flight are frozen, their KV cache
is thrown away and computed anew with the new weights, and they go on. Restoring loads the checkpoint again:
bit for bit the base, never a subtraction.
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


class FusingEngine(Protocol):
    """What fusion needs of the engine. `load_base` gives the seconds generation stood still.

    One that raises may leave half of each, and generation paused.
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
    """The last one that succeeded."""

    seconds: float
    """From the request to the answer."""
    stalled_seconds: float
    """Of those, how long generation stood still."""


class FusionSwitch:
    """Owner of the base weights. All of it runs on the event loop."""

    def __init__(self, engine: FusingEngine, residency: ResidencyScheduler, metrics: Metrics) -> None:
        self.state: State = "base"
        self.fused: Servable | None = None
        self.last: BaseSwitch | None = None
        self._engine = engine
        self._residency = residency
        self._metrics = metrics
        self._members = AsyncExitStack()
        self._progress: Path | None = None
        self._target: Servable | None = None
        self._before: State = "base"

    def check(self, wanted: Servable | None) -> None:
        """Whether `wanted` (None: the base) can be served in this world.

        Raises Unservable("rank_too_large") where its residual does not fit, and StorageUnavailable where
        there is no world left.
        """
        if self.state == "failed":
            raise StorageUnavailable(
                Code.BASE_LOST, "The base weights could not be restored; the server has to be restarted."
            )
        fused = self._target if self.state == "fusing" else self.fused
        if fused is None or wanted is None or self._engine.runtime_weights:
            return
        rank = sum(part.rank for part in combined(wanted.components, fused.components))
        if rank > self._engine.max_lora_rank:
            raise Unservable(
                Code.RANK_TOO_LARGE,
                f"While {fused.name} is fused, {wanted.name} needs rank {rank} for the difference; this "
                f"server's max_lora_rank is {self._engine.max_lora_rank}. "
                "DELETE /v1/fusion restores the base.",
                "model",
            )

    async def fuse(self, servable: Servable) -> None:
        """Fold `servable` into the base, in place of what is fused now.

        Raises Unservable("not_fusable"), Conflict("fusion_busy") during another switch, and what loading
        raised: then the base is plain again, or there is none and `check` says so.
        """
        if self.fused is None or self.fused.name != servable.name or self.state != "fused":
            await self._switch("fusing", servable)

    async def restore(self) -> None:
        """The plain base again, to the bit. Nothing to do where it is plain. Raises as `fuse` does."""
        if self.state != "base":
            await self._switch("restoring", None)

    async def _switch(self, through: State, servable: Servable | None) -> None:
        if self.state not in ("base", "fused"):
            raise Conflict(Code.FUSION_BUSY, f"The base is {self.state} now.")
        self._before, self.state, self._target = self.state, through, servable
        # Whoever asked may go away in the middle; the base must not stay there.
        await asyncio.shield(asyncio.create_task(self._carry_out(through, servable)))

    async def _carry_out(self, through: State, servable: Servable | None) -> None:
        started = time.perf_counter()
        members = AsyncExitStack()
        try:
            if servable is not None:
                await self._check_fusable(servable)
                # Every residual needs them: they stay in host memory for as long as they are fused.
                await members.enter_async_context(self._residency.keep(servable))
            failures = self._metrics.switch_failures.labels(through)
            with self._metrics.switches_in_progress.track_inprogress(), failures.count_exceptions():
                stalled = await self._load(servable)
        except BaseException:
            await members.aclose()
            if self.state == through:  # refused before anything was loaded
                self._settle(self._before, self.fused)
            raise
        await self._members.aclose()
        self._members = members
        self._settle("base" if servable is None else "fused", servable)
        self.last = BaseSwitch(time.perf_counter() - started, stalled)
        self._metrics.switch_seconds.labels(through).observe(stalled)
        name = self._engine.base if servable is None else servable.name
        logger.info("%s %s: generation stood still for %.2f s", through, name, stalled)

    async def _check_fusable(self, servable: Servable) -> None:
        reason = await self._engine.why_not_foldable(servable.components)
        if reason is None and not self._engine.runtime_weights:
            reason = self._why_slots_do_not_do()
        if reason is not None:
            raise Unservable(Code.NOT_FUSABLE, f"{servable.name} cannot be fused: {reason}", "model")

    def _why_slots_do_not_do(self) -> str | None:
        """A residual that finds no slot, or too small a one, would end the engine, not the request."""
        if self._engine.max_loras < 2:
            return "the base needs a slot of its own then (--max-loras)"
        try:
            for wanted in self._residency.wanted():
                self.check(wanted)
        except Unservable as error:
            return error.message
        return None

    async def _load(self, servable: Servable | None) -> float:
        """The seconds generation stood still. Where it fails half-way, the plain base, or nothing more."""
        with TemporaryDirectory(prefix="lora-compose-fusion-") as directory:
            self._progress = Path(directory) / "progress"
            try:
                return await self._engine.load_base(servable.components if servable else (), self._progress)
            except EngineDied:
                raise  # the next one begins with the plain base
            except BaseException:
                await self._recover(self._progress)
                raise
            finally:
                self._progress = None

    async def _recover(self, progress: Path) -> None:
        logger.exception("loading the base failed; loading it again, plain")
        state: State = "failed"
        try:
            await self._engine.load_base((), progress)
            state = "base"
        except Exception:
            logger.exception("the base is lost: nothing more is served")
            await self._engine.stop_serving()
        finally:
            await self._members.aclose()
            self._settle(state, None)

    def _settle(self, state: State, fused: Servable | None) -> None:
        self.state, self.fused, self._target = state, fused, None
        self._metrics.fused.set(state == "fused")

    @property
    def progress(self) -> float | None:
        """The share of the checkpoint loaded, during a switch."""
        if self._progress is None:
            return None
        try:
            return float(self._progress.read_text() or 0)
        except (FileNotFoundError, ValueError):
            return 0.0
