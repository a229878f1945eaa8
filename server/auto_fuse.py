"""Automatic fusing (`--auto-fuse`): switches the base weights as the policy of `server.fusion` decides.

Every second it reads the workers' meter, passes the reading to the policy, and carries out its decision. A
decision is counted in the metrics, and logged with its reason when it changes.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any, Protocol

from lora_compose.adapters.composition.grammar import parse
from lora_compose.adapters.errors import LoraComposeError
from lora_compose.server.fusion.policy import Decision, FusePolicy, FusePolicySettings
from lora_compose.server.fusion.token_prices import Costs
from lora_compose.server.metrics import Metrics
from lora_compose.server.pipeline import CompositionPipeline

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
PRIOR_SECONDS = 0.5
PRIOR_BYTES_PER_SECOND = 500e6
MEASURED_ROWS = 200
"""Rows with LoRA work that must be measured before their cost is used."""


class MeteredEngine(Protocol):
    """The parts of the engine that automatic fusing uses."""

    @property
    def checkpoint_bytes(self) -> int: ...

    async def read_meter(self) -> dict[str, Any]: ...


class AutoFuse:
    """A task that runs beside the server; see `run`."""

    def __init__(
        self,
        engine: MeteredEngine,
        pipeline: CompositionPipeline,
        metrics: Metrics,
        settings: FusePolicySettings,
    ) -> None:
        self._engine = engine
        self._pipeline = pipeline
        self._fusion = pipeline.fusion
        self._metrics = metrics
        self._policy = FusePolicy(settings)
        self._known: str | None = None
        """The fused composition of which the policy was last notified."""
        self._logged: tuple[str, str | None] | None = None
        """Action and model of the last decision that was logged."""
        self._unfusable: set[str] = set()

    async def run(self) -> None:
        """Poll every second until cancelled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self._poll()
            except LoraComposeError as error:
                logger.warning("auto-fuse: %s", error.message)

    async def _poll(self) -> None:
        if self._fusion.state not in ("base", "fused"):
            return
        reading = await self._engine.read_meter()
        self._notice_switch()
        costs = measured_costs(reading["overheads"], self._switch_seconds())
        if costs.overhead is not None:
            self._metrics.lora_overhead.set(costs.overhead)
        tokens = {name: count for name, count in reading["tokens"] if name not in self._unfusable}
        self._policy.observe(time.monotonic(), tokens, reading["busy_seconds"], costs)
        decision = self._policy.decide(time.monotonic())
        self._record(decision)
        await self._carry_out(decision)

    def _switch_seconds(self) -> float:
        """The measured seconds of a switch, or before the first one an estimate by the checkpoint's size."""
        if self._fusion.last is not None:
            return self._fusion.last.stalled_seconds
        return PRIOR_SECONDS + self._engine.checkpoint_bytes / PRIOR_BYTES_PER_SECOND

    def _notice_switch(self) -> None:
        """Notify the policy of a switch, including switches that a client requested."""
        fused, last = self._fusion.fused, self._fusion.last
        name = fused.name if fused else None
        if name != self._known:
            self._known = name
            self._policy.switched(time.monotonic(), name, last.stalled_seconds if last else 0.0)

    def _record(self, decision: Decision) -> None:
        self._metrics.auto_fuse_decisions.labels(decision.action).inc()
        self._metrics.auto_fuse_gain.set(decision.expected_gain)
        if (decision.action, decision.model) != self._logged:
            self._logged = (decision.action, decision.model)
            logger.info("auto-fuse: %s", decision.reason)

    async def _carry_out(self, decision: Decision) -> None:
        if decision.action == "keep":
            return
        if decision.model is None:
            await self._fusion.restore()
        else:
            await self._fuse(decision.model)
        self._notice_switch()

    async def _fuse(self, name: str) -> None:
        try:
            await self._pipeline.fuse(self._pipeline.resolve(parse(name)))
        except LoraComposeError:
            self._unfusable.add(name)  # removed meanwhile or not fusable: do not try again every second
            raise


def measured_costs(overheads: Sequence[Sequence[float]], switch_seconds: float) -> Costs:
    """The policy's prices from the meter's reading: a line fitted through the overheads by stack size.

    If only one size was measured, all sizes have its price.
    """
    known = [(size, cost, rows) for size, cost, rows in overheads if rows >= MEASURED_ROWS]
    if not known:
        return Costs(overhead=None)
    weight = sum(rows for _, _, rows in known)
    mean_size = sum(size * rows for size, _, rows in known) / weight
    mean_cost = sum(cost * rows for _, cost, rows in known) / weight
    spread = sum(rows * (size - mean_size) ** 2 for size, _, rows in known)
    slope = sum(rows * (size - mean_size) * (cost - mean_cost) for size, cost, rows in known)
    per_member = max(0.0, slope / spread) if spread else 0.0
    overhead = max(0.0, mean_cost - per_member * (mean_size - 1))
    return Costs(overhead, per_member, switch_seconds)
