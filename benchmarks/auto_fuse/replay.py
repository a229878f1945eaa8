"""A simulated server that follows the fuse policy. Time is computed, so hours of traffic take a second.

The server computes serving time from the true costs. The policy gets `assumed` costs, which can differ, as
they would on a server that measures badly. The cost of a run is its serving time plus the time of its
switches. Waiting for work costs nothing.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from random import Random

from lora_compose.benchmarks.auto_fuse.traces import TOKENS_PER_SECOND, Second, Trace, draw
from lora_compose.server.fusion.policy import FusePolicy, FusePolicySettings
from lora_compose.server.fusion.token_prices import Costs, Model, mean_price


@dataclass(frozen=True)
class ReplayResult:
    """The cost and the switches of a run."""

    cost_seconds: float
    fuses: dict[str, int]
    """How often each composition was fused."""
    switched_at: tuple[float, ...]
    """Times of all switches, including restores, in seconds since the start."""


class SimulatedServer:
    """Serves a trace second by second, and asks the policy after each one."""

    def __init__(self, settings: FusePolicySettings, true: Costs, assumed: Costs) -> None:
        self.fused: Model = None
        self._policy = FusePolicy(settings)
        self._true, self._assumed = true, assumed
        self._arrived = 0
        self._now = 0.0
        self._cost = 0.0
        self._fuses: Counter[str] = Counter()
        self._switched_at: list[float] = []

    def serve(self, second: Second) -> None:
        """Serve the requests that arrived in one second, after that second and after all earlier requests."""
        self._arrived += 1
        busy = serving_seconds(second, self.fused, self._true)
        self._now = max(self._now, float(self._arrived)) + busy
        self._cost += busy
        self._policy.observe(self._now, second, busy, self._assumed)
        decision = self._policy.decide(self._now)
        if decision.action != "keep":
            self._switch(decision.model)

    def outcome(self) -> ReplayResult:
        return ReplayResult(self._cost, dict(self._fuses), tuple(self._switched_at))

    def _switch(self, model: Model) -> None:
        """The first switch replaces the policy's prior by the true switch time."""
        took = self._true.switch_seconds
        self.fused = model
        self._now += took
        self._cost += took
        self._switched_at.append(self._now)
        self._assumed = replace(self._assumed, switch_seconds=took)
        self._fuses.update([] if model is None else [model])
        self._policy.switched(self._now, model, took)


def serving_seconds(second: Second, fused: Model, costs: Costs) -> float:
    """Time to serve the tokens of `second`, in seconds."""
    total = sum(second.values())
    return total * mean_price(second, fused, costs) / TOKENS_PER_SECOND if total else 0.0


def replayed(trace: Trace, settings: FusePolicySettings, true: Costs, assumed: Costs) -> ReplayResult:
    """The result of serving the trace under the policy."""
    server = SimulatedServer(settings, true, assumed)
    for second in trace.seconds:
        server.serve(second)
    return server.outcome()


def fixed_cost(trace: Trace, fused: Model, costs: Costs) -> float:
    """Seconds to serve the trace with `fused` folded into the base throughout. None means never fusing."""
    switch = 0.0 if fused is None else costs.switch_seconds
    return switch + sum(serving_seconds(second, fused, costs) for second in trace.seconds)


def hindsight(trace: Trace, costs: Costs, candidates: Iterable[Model]) -> Model:
    """The fixed choice with the lowest cost, among never fusing and `candidates`."""
    return min([None, *candidates], key=lambda model: fixed_cost(trace, model, costs))


def hostile(seed: int, seconds: int, settings: FusePolicySettings, true: Costs) -> Trace:
    """Traffic that knows the policy: it requests the base while something is fused, else one adapter."""
    rng = Random(seed)
    server = SimulatedServer(settings, true, true)
    drawn: list[Second] = []
    for _ in range(seconds):
        drawn.append(draw(rng, {"hot@1": 1.0} if server.fused is None else {None: 1.0}))
        server.serve(drawn[-1])
    return Trace("hostile, knows the policy", tuple(drawn))
