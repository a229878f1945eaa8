"""A simulated server under the fuse policy. Time is computed, so a run of hours takes a second.

It prices tokens as the policy does, but with the true costs; the policy is told others if wanted, as it would
be by a server that measures badly. Cost is serving time plus the time of switches; waiting for work is free.
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
    """What a run cost and did."""

    cost_seconds: float
    fuses: dict[str, int]
    """How often each composition was fused."""
    switched_at: tuple[float, ...]
    """Seconds since the start, restores included."""


class SimulatedServer:
    """Serves one second of a trace after the other and does what the policy says in between."""

    def __init__(self, settings: FusePolicySettings, true: Costs, told: Costs) -> None:
        self.fused: Model = None
        self._policy = FusePolicy(settings)
        self._true, self._told = true, told
        self._arrived = 0
        self._now = 0.0
        self._cost = 0.0
        self._fuses: Counter[str] = Counter()
        self._switched_at: list[float] = []

    def serve(self, second: Second) -> None:
        """Serve what arrived in one more second, as soon as it is whole and all before it is served."""
        self._arrived += 1
        busy = serving_seconds(second, self.fused, self._true)
        self._now = max(self._now, float(self._arrived)) + busy
        self._cost += busy
        self._policy.observe(self._now, second, busy, self._told)
        decision = self._policy.decide(self._now)
        if decision.action != "keep":
            self._switch(decision.model)

    def outcome(self) -> ReplayResult:
        return ReplayResult(self._cost, dict(self._fuses), tuple(self._switched_at))

    def _switch(self, model: Model) -> None:
        """The policy's prior ends with the first switch: from then on the true time is known."""
        took = self._true.switch_seconds
        self.fused = model
        self._now += took
        self._cost += took
        self._switched_at.append(self._now)
        self._told = replace(self._told, switch_seconds=took)
        self._fuses.update([] if model is None else [model])
        self._policy.switched(self._now, model, took)


def serving_seconds(second: Second, fused: Model, costs: Costs) -> float:
    """How long the tokens of `second` take."""
    total = sum(second.values())
    return total * mean_price(second, fused, costs) / TOKENS_PER_SECOND if total else 0.0


def replayed(trace: Trace, settings: FusePolicySettings, true: Costs, told: Costs) -> ReplayResult:
    """The trace, served under the policy."""
    server = SimulatedServer(settings, true, told)
    for second in trace.seconds:
        server.serve(second)
    return server.outcome()


def fixed_cost(trace: Trace, fused: Model, costs: Costs) -> float:
    """The trace, served with `fused` from the first token to the last; None never fuses."""
    switch = 0.0 if fused is None else costs.switch_seconds
    return switch + sum(serving_seconds(second, fused, costs) for second in trace.seconds)


def hindsight(trace: Trace, costs: Costs, candidates: Iterable[Model]) -> Model:
    """The best fixed choice among never fusing and `candidates`."""
    return min([None, *candidates], key=lambda model: fixed_cost(trace, model, costs))


def hostile(seed: int, seconds: int, settings: FusePolicySettings, true: Costs) -> Trace:
    """The base as long as something is fused, one adapter as long as nothing is: it knows the policy."""
    rng = Random(seed)
    server = SimulatedServer(settings, true, true)
    asked: list[Second] = []
    for _ in range(seconds):
        asked.append(draw(rng, {"hot@1": 1.0} if server.fused is None else {None: 1.0}))
        server.serve(asked[-1])
    return Trace("hostile, knows the policy", tuple(asked))
