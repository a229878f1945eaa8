"""Decides which composition should be fused now, if any. Pure: time is an argument, and nothing is switched.

A fused composition needs no LoRA work, and every other request becomes slower. So whether fusing saves time
depends on future traffic, which is unknown. Two rules decide, both in seconds of serving:

- **Ski rental** (Karlin, Manasse, Rudolph, Sleator: "Competitive snoopy caching", Algorithmica 3, 1988):
  switch when not switching has cost `margin` times the cost of a switch. This assumes that a mix lasts as
  long again as it has lasted, and needs no forecast. The cost of not switching ("regret") never falls below
  0. The regret of a composition is reset when it loses its majority, because a past mix does not predict the
  next one.
- **An allowance**, which bounds the cost of a wrong fuse (dLoRA, Wu et al., OSDI 2024, also merges by
  credits). It starts at 0. It grows by `budget` (5 %) of the time that serving without fusing would have
  taken, and by half of the time that fusing is measured to save. All the time of switches, and all the time
  that fusing loses, is subtracted. A fuse needs enough allowance for the switch, for the worst traffic during
  the whole dwell, and for the switch back. If losses leave only enough for the switch back, the base is
  restored.

This bounds the cost for ANY traffic, including the worst. Over a whole run let N be the seconds of serving
without fusing, and G, L and K the seconds saved, lost and spent on switches. The run takes N - G + L + K. The
allowance is at most budget*N + G/2 - L - K (it is capped), and it stays >= 0: only losses during a dwell and
the switch back lower it without a new check, and both are set aside before a fuse. So
L + K <= budget*N + G/2, and the run takes at most (1 + budget) * N - G/2.

If all measured prices are wrong by one factor r, the true losses and savings are L*r and G*r, and
L*r + K - G*r <= max(1, r) * (budget*N + G/2) - G*r <= max(1, r) * budget * N for any r >= 1/2. With 5 %,
prices that are wrong by up to a factor of two keep the run under 1.1 * N, up to second order in the prices.

Two losses can be added once: that of an interval between two observations that is longer than the one before,
and that of a switch that takes longer than was measured. Because of the cap this holds from any moment on,
not only from the start: hours of good service do not allow a long period of bad service.

The disadvantage is a late first fuse. It waits for (2 * switch + worst loss of a dwell) / budget seconds of
serving, which is three minutes at 12 % overhead and a switch of 3 s.

A fuse also needs a clear majority of the tokens, `min_share`. Prices are averages per token, but a step
launches its LoRA kernels as soon as one row needs them, so an even mix saves less than its price says. S-LoRA
(Sheng et al., 2023) measured that merging is faster for one adapter, and slower from two equal ones on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Literal

from pydantic import with_config

from lora_compose.adapters.dataclass_options import ATTRIBUTE_DOCSTRINGS
from lora_compose.server.fusion.token_prices import Costs, Model, mean_price, members, worst_loss


@with_config(ATTRIBUTE_DOCSTRINGS)
@dataclass(frozen=True)
class FusePolicySettings:
    """How readily the policy fuses; the flags belong to `serve`.

    Raises ValueError with the flag and its value."""

    half_life_seconds: float = 20.0
    """Seconds after which a token counts half in the current mix."""
    min_dwell_seconds: float = 20.0
    """Shortest time between two switches, in seconds. A longer time delays the first fuse."""
    margin: float = 2.0
    """Switch when not switching has cost this many times the duration of a switch (2: there and back)."""
    min_share: float = 0.6
    """Share of the tokens in the current mix that a composition needs to be fused."""
    min_tokens: float = 500.0
    """Fewest tokens in the current mix for a fuse. Older tokens count less (see half-life)."""
    budget: float = 0.05
    """Share of the serving time that fusing may lose in total, compared with never fusing."""

    def __post_init__(self) -> None:
        ranges = {
            "half_life_seconds": (self.half_life_seconds > 0, "above 0"),
            "min_dwell_seconds": (self.min_dwell_seconds >= 0, "at least 0"),
            "margin": (self.margin >= 1, "at least 1"),
            "min_share": (0.5 < self.min_share <= 1, "above 0.5 and at most 1"),
            "min_tokens": (self.min_tokens >= 0, "at least 0"),
            "budget": (0 < self.budget <= 0.5, "above 0 and at most 0.5"),
        }
        for name, (is_valid, requirement) in ranges.items():
            if not is_valid:
                flag = f"--fuse-{name.replace('_', '-')}"
                raise ValueError(f"{flag} ({getattr(self, name)}) must be {requirement}")


CREDITED_SAVING = 0.5
"""Share of a measured saving that is added to the allowance. The rest is a margin for measurement errors."""
MAX_ROUND_TRIPS = 3
"""The allowance is at most what this many fuses need."""
MIN_MODEL_TOKENS = 0.5
"""A composition with fewer decayed tokens is dropped from the mix."""


@dataclass(frozen=True)
class Decision:
    """What to do now. `model` is the composition that is fused afterwards, None for the base."""

    action: Literal["keep", "fuse", "restore"]
    model: Model
    reason: str
    """One line that explains the decision."""
    expected_gain: float = 0.0
    """Seconds saved per second of serving if the current mix lasts; 0 for keep."""


class FusePolicy:
    """Call `observe` and then `decide` about every second, and `switched` right after any switch.

    An interval must not contain a switch, so call `observe` before switching."""

    def __init__(self, settings: FusePolicySettings | None = None) -> None:
        self._settings = settings or FusePolicySettings()
        self._fused: Model = None
        self._switched_at: float | None = None
        self._observed_at: float | None = None
        self._mix: dict[Model, float] = {}
        self._costs = Costs(overhead=None)
        self._busy = 0.0
        """Seconds of serving in the last interval."""
        self._saved = 0.0
        """Seconds that fusing saved in the last interval, compared with never fusing. A loss is negative."""
        self._allowance = 0.0
        self._regret: dict[Model, float] = {}
        """For each model that is worth considering: the seconds lost because it was not fused."""

    def observe(self, now: float, tokens: Mapping[Model, int], busy_seconds: float, costs: Costs) -> None:
        """Record the tokens generated since the last call, by composition (None for the base).

        `now` is the time of any monotonic clock. `busy_seconds` is the time since the last call in which the
        engine had work: a server that is mostly idle saves little."""
        self._costs = costs
        self._decay(now, tokens)
        served = {model: float(count) for model, count in tokens.items() if count > 0}
        self._busy = busy_seconds if served else 0.0
        self._saved = 0.0
        if served and costs.overhead is not None:
            self._saved = -self._busy * self._saving(served, None)
            self._update_allowance()
            self._update_regret(served)

    def switched(self, now: float, fused: Model, seconds: float) -> None:
        """Record a switch: serving was paused for `seconds`, and `fused` is fused from `now` on."""
        self._fused = fused
        self._switched_at = now
        self._allowance -= seconds
        self._regret.clear()

    def decide(self, now: float) -> Decision:
        """What to do now. Changes nothing: a decision takes effect only if `switched` is called."""
        reason = self._why_no_switch(now)
        if reason is not None:
            return self._keep(reason)
        if self._must_restore():
            reason = f"restore the base: {self._fused} has lost as much time as fusing may lose"
            return Decision("restore", None, reason, self._saving(self._mix, None))
        refusals = []
        for model, regret in sorted(self._regret.items(), key=itemgetter(1), reverse=True):
            obstacle = self._obstacle(model, regret)
            if obstacle is None:
                return self._switch_to(model, regret)
            refusals.append(f"{self._state()}; {_action(model)} must wait: {obstacle}")
        nothing_better = f"{self._state()}; no other composition has a clear majority"
        return self._keep(refusals[0] if refusals else nothing_better)

    def _decay(self, now: float, tokens: Mapping[Model, int]) -> None:
        elapsed = 0.0 if self._observed_at is None else now - self._observed_at
        factor = 0.5 ** (elapsed / self._settings.half_life_seconds)
        self._observed_at = now
        mix = {model: count * factor for model, count in self._mix.items()}
        for model, count in tokens.items():
            mix[model] = mix.get(model, 0.0) + count
        self._mix = {model: count for model, count in mix.items() if count >= MIN_MODEL_TOKENS}

    def _saving(self, tokens: Mapping[Model, float], target: Model) -> float:
        """The share of serving time that fusing `target`, instead of the fused model, saves on `tokens`."""
        if target == self._fused or not tokens:
            return 0.0
        return 1.0 - mean_price(tokens, target, self._costs) / mean_price(tokens, self._fused, self._costs)

    def _update_allowance(self) -> None:
        never = self._busy + self._saved
        credited = self._saved * (CREDITED_SAVING if self._saved > 0 else 1.0)
        earned = self._allowance + self._settings.budget * never + credited
        largest = max(1, *(len(members(model)) for model in self._mix))
        self._allowance = min(earned, MAX_ROUND_TRIPS * self._round_trip(largest))

    def _update_regret(self, served: Mapping[Model, float]) -> None:
        leader = max(self._mix, key=self._mix.__getitem__, default=None)
        worthy = {None, leader} if self._share(leader) >= self._settings.min_share else {None}
        self._regret = {
            model: max(0.0, self._regret.get(model, 0.0) + self._busy * self._saving(served, model))
            for model in worthy - {self._fused}
        }

    def _share(self, model: Model) -> float:
        total = sum(self._mix.values())
        return self._mix.get(model, 0.0) / total if total else 0.0

    def _needed(self, model: Model) -> float:
        """The allowance that a switch to `model` needs."""
        return self._costs.switch_seconds if model is None else self._round_trip(len(members(model)))

    def _round_trip(self, size: int) -> float:
        """The most that fusing `size` members can cost: the switch, the worst dwell, and the switch back."""
        exposed = self._settings.min_dwell_seconds + self._busy
        return 2 * self._costs.switch_seconds + exposed * worst_loss(size, self._costs)

    def _must_restore(self) -> bool:
        """True if the allowance is too small for one more interval of losses.

        False while fusing saves time."""
        if self._fused is None or self._saved >= 0:
            return False
        next_loss = self._busy * worst_loss(len(members(self._fused)), self._costs)
        return self._allowance < self._needed(None) + next_loss

    def _why_no_switch(self, now: float) -> str | None:
        """The reason why no switch may happen now, or None."""
        if self._costs.overhead is None:
            return f"{self._state()}; the cost of LoRA work is not measured yet"
        if not self._busy:
            return f"{self._state()}; no request was served since the last check"
        dwelt = None if self._switched_at is None else now - self._switched_at
        if dwelt is not None and dwelt < self._settings.min_dwell_seconds:
            least = self._settings.min_dwell_seconds
            return f"{self._state()}; the last switch was {dwelt:.1f} s ago, and {least:g} s must pass"
        return None

    def _obstacle(self, model: Model, regret: float) -> str | None:
        """The reason why `model` may not be switched to now, or None."""
        threshold = self._settings.margin * self._costs.switch_seconds
        if regret <= threshold:
            return f"waiting has cost {regret:.1f} s, and a switch needs {threshold:.1f} s"
        if self._saving(self._mix, model) <= 0:
            return "it would not save time in the current mix"
        if model is None:
            return None
        if sum(self._mix.values()) < self._settings.min_tokens:
            return f"fewer than {self._settings.min_tokens:g} tokens were generated recently"
        if self._allowance < self._needed(model):
            return f"the allowance is {self._allowance:.1f} s, and a switch needs {self._needed(model):.1f} s"
        return None

    def _switch_to(self, model: Model, regret: float) -> Decision:
        gain = self._saving(self._mix, model)
        why = f"waiting has cost {regret:.1f} s, and a switch takes {self._costs.switch_seconds:.1f} s"
        if model is None:
            reason = f"restore the base: {gain:.1%} less time is needed if {self._fused} is not fused; {why}"
            return Decision("restore", None, reason, gain)
        share = self._share(model)
        reason = f"fuse {model}: it has {share:.0%} of the tokens, and {gain:.1%} less time is needed; {why}"
        return Decision("fuse", model, reason, gain)

    def _state(self) -> str:
        return "nothing is fused" if self._fused is None else f"{self._fused} stays fused"

    def _keep(self, reason: str) -> Decision:
        return Decision("keep", self._fused, reason)


def _action(model: Model) -> str:
    return "restoring the base" if model is None else f"fusing {model}"
