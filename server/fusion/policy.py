"""Which composition should be fused now, if any. Pure: time is an argument, nothing is switched here.

A fused composition runs free of LoRA work and everything else pays for it, so what pays depends on traffic
that nobody knows beforehand. Two rules decide, both in seconds of serving:

- **Ski rental** (Karlin, Manasse, Rudolph, Sleator: "Competitive snoopy caching", Algorithmica 3, 1988):
  switch once staying has cost `margin` times what a switch costs. A mix is so expected to last as long as it
  has lasted, and no horizon is guessed. This loss ("regret") never falls below 0, and a composition's is
  forgotten when it loses its majority: a past mix argues for nothing.
- **An allowance**, which bounds the regret of an unlucky fuse (dLoRA, Wu et al., OSDI 2024, merges by
  credits too). It starts at 0 and grows by `budget` (5 %) of the time that never fusing would have
  taken and by half of what fusing is measured to save. All of what a switch takes and of what fusing loses
  comes off. A fuse needs enough for the way there, the worst traffic for the whole dwell, and the way back;
  when a loss leaves no more than the way back, the base is restored.

Why that bounds the cost on ANY traffic, the most hostile included. Over a whole run let N be the seconds that
never fusing takes, and G, L, K those saved, lost and spent on switches: the run takes N - G + L + K. The
allowance, budget*N + G/2 - L - K or less (it is capped), stays >= 0: only losing in a dwell and the way back
lower it unasked, and both are set aside before a fuse. So L + K <= budget*N + G/2, and the cost is at most
(1 + budget) * N - G/2. If all measured prices are wrong by one factor r, true losses and savings are L*r and
G*r, and L*r + K - G*r <= max(1, r) * (budget*N + G/2) - G*r <= max(1, r) * budget * N for any r >= 1/2: with
5 %, prices wrong by up to a factor of two keep the cost under 1.1 * N, up to second order in the prices. What
may come on top, once, is the loss of an interval between two looks that is longer than the one before, or a
switch that takes longer than was measured. The cap makes this hold from any moment on, not merely from
the start: hours of good service earn no long spell of bad one.

The price of this is patience: the first fuse waits for (2 * switch + worst loss of a dwell) / budget seconds
of serving, three minutes at 12 % overhead and a switch of 3 s; a server lives longer than that.

A fuse also needs a clear majority of the tokens, `min_share`. Prices are averages per token, but a step
launches its LoRA kernels as soon as one row needs them, so an even mix never saves what it is priced at:
S-LoRA (Sheng et al., 2023) measured merging ahead for one adapter and behind from an even two on.

How readily the policy fuses. The flags are `serve`'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import with_config

from lora_compose.adapters.dataclass_options import ATTRIBUTE_DOCSTRINGS
from lora_compose.server.fusion.token_prices import Costs, Model, mean_price, members, worst_loss


@with_config(ATTRIBUTE_DOCSTRINGS)
@dataclass(frozen=True)
class FusePolicySettings:
    """Raises ValueError, naming the flag and its value, for what cannot work."""

    half_life_seconds: float = 20.0
    """In which a token's weight in the current mix halves."""
    min_dwell_seconds: float = 20.0
    """Between two switches. Its worst loss must be earned before a fuse, so a longer one delays the first."""
    margin: float = 2.0
    """Staying must have cost this many switches first. 2: the way there and the way back."""
    min_share: float = 0.6
    """Of the current mix, for a composition to be fused."""
    min_tokens: float = 500.0
    """In the current mix, decayed; fewer say nothing about it."""
    budget: float = 0.05
    """The share of serving time that fusing may lose, net, against never fusing."""

    def __post_init__(self) -> None:
        ranges = {
            "half_life_seconds": (self.half_life_seconds > 0, "above 0"),
            "min_dwell_seconds": (self.min_dwell_seconds >= 0, "at least 0"),
            "margin": (self.margin >= 1, "at least 1"),
            "min_share": (0.5 < self.min_share <= 1, "above 0.5 and at most 1"),
            "min_tokens": (self.min_tokens >= 0, "at least 0"),
            "budget": (0 < self.budget <= 0.5, "above 0 and at most 0.5"),
        }
        for name, (holds, wanted) in ranges.items():
            if not holds:
                flag = f"--fuse-{name.replace('_', '-')}"
                raise ValueError(f"{flag} ({getattr(self, name)}) must be {wanted}")


CREDITED_SAVING = 0.5
"""Share of a measured saving that may be spent again; the rest is kept against errors of measurement."""
MAX_TRIPS = 3
"""The allowance holds at most this many fuses' needs."""
FORGOTTEN = 0.5
"""A composition with fewer decayed tokens has no traffic."""


@dataclass(frozen=True)
class Decision:
    """What to do now; `model` is what is fused afterwards, None for the base."""

    action: Literal["keep", "fuse", "restore"]
    model: Model
    reason: str
    """One sentence, for people."""
    expected_gain: float = 0.0
    """Seconds saved per second of serving if the current mix lasts; 0 for keep."""


class FusePolicy:
    """Call `observe` then `decide` about every second and, right after any switch, `switched`.

    An interval must not span a switch: observe before switching."""

    def __init__(self, settings: FusePolicySettings | None = None) -> None:
        self._settings = settings or FusePolicySettings()
        self._fused: Model = None
        self._switched_at: float | None = None
        self._seen_at: float | None = None
        self._mix: dict[Model, float] = {}
        self._costs = Costs(overhead=None)
        self._busy = 0.0
        """Seconds of serving in the last interval."""
        self._saved = 0.0
        """Seconds that fusing saved in it against never fusing; a loss is negative."""
        self._allowance = 0.0
        self._regret: dict[Model, float] = {}
        """Seconds lost by not being in that state, of the states worth considering."""

    def observe(self, now: float, tokens: Mapping[Model, int], busy_seconds: float, costs: Costs) -> None:
        """Take in the tokens generated since the last call, by composition, None for the base.

        `now` is of any monotonic clock; `busy_seconds` is the time in between in which the engine had work,
        so that a quiet server is not thought to save much."""
        self._costs = costs
        self._decay(now, tokens)
        served = {model: float(count) for model, count in tokens.items() if count > 0}
        self._busy = busy_seconds if served else 0.0
        self._saved = 0.0
        if served and costs.overhead is not None:
            self._saved = -self._busy * self._saving(served, None)
            self._earn()
            self._accumulate(served)

    def switched(self, now: float, fused: Model, seconds: float) -> None:
        """Serving stood still for `seconds`, whoever asked for it, and `fused` is fused from `now` on."""
        self._fused = fused
        self._switched_at = now
        self._allowance -= seconds
        self._regret.clear()

    def decide(self, now: float) -> Decision:
        """What to do now. Changes nothing: what is not followed by `switched` did not happen."""
        waiting = self._waiting(now)
        if waiting is not None:
            return self._keep(waiting)
        if self._must_restore():
            reason = f"restore the base: fused, {self._fused} has used up what fusing may lose"
            return Decision("restore", None, reason, self._saving(self._mix, None))
        refusals = []
        for model, regret in sorted(self._regret.items(), key=lambda one: one[1], reverse=True):
            obstacle = self._obstacle(model, regret)
            if obstacle is None:
                return self._switch_to(model, regret)
            refusals.append(f"{self._state()}: {_verb(model)} must wait, {obstacle}")
        nothing_better = f"{self._state()}: no other composition has a clear majority"
        return self._keep(refusals[0] if refusals else nothing_better)

    def _decay(self, now: float, tokens: Mapping[Model, int]) -> None:
        elapsed = 0.0 if self._seen_at is None else now - self._seen_at
        factor = 0.5 ** (elapsed / self._settings.half_life_seconds)
        self._seen_at = now
        mix = {model: count * factor for model, count in self._mix.items()}
        for model, count in tokens.items():
            mix[model] = mix.get(model, 0.0) + count
        self._mix = {model: count for model, count in mix.items() if count >= FORGOTTEN}

    def _saving(self, tokens: Mapping[Model, float], target: Model) -> float:
        """The share of serving time that `target` instead of what is fused would have saved on `tokens`."""
        if target == self._fused or not tokens:
            return 0.0
        return 1.0 - mean_price(tokens, target, self._costs) / mean_price(tokens, self._fused, self._costs)

    def _earn(self) -> None:
        never = self._busy + self._saved
        credited = self._saved * (CREDITED_SAVING if self._saved > 0 else 1.0)
        earned = self._allowance + self._settings.budget * never + credited
        largest = max(1, *(len(members(model)) for model in self._mix))
        self._allowance = min(earned, MAX_TRIPS * self._trip(largest))

    def _accumulate(self, served: Mapping[Model, float]) -> None:
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
        """The allowance that switching to `model` takes."""
        return self._costs.switch_seconds if model is None else self._trip(len(members(model)))

    def _trip(self, size: int) -> float:
        """What fusing `size` members may cost: the way there, the worst that may follow, and the way back."""
        exposed = self._settings.min_dwell_seconds + self._busy
        return 2 * self._costs.switch_seconds + exposed * worst_loss(size, self._costs)

    def _must_restore(self) -> bool:
        """Whether one more interval of losses could not be paid for. While fusing saves there is no hurry."""
        if self._fused is None or self._saved >= 0:
            return False
        next_loss = self._busy * worst_loss(len(members(self._fused)), self._costs)
        return self._allowance < self._needed(None) + next_loss

    def _waiting(self, now: float) -> str | None:
        """Why no switch may happen at all."""
        if self._costs.overhead is None:
            return f"{self._state()}: what LoRA work costs is not measured yet"
        if not self._busy:
            return f"{self._state()}: nothing was served since the last look"
        dwelt = None if self._switched_at is None else now - self._switched_at
        if dwelt is not None and dwelt < self._settings.min_dwell_seconds:
            least = self._settings.min_dwell_seconds
            return f"{self._state()}: the last switch was {dwelt:.1f} s ago, of at least {least:g} s"
        return None

    def _obstacle(self, model: Model, regret: float) -> str | None:
        """What `model` lacks to be switched to."""
        threshold = self._settings.margin * self._costs.switch_seconds
        if regret <= threshold:
            return f"waiting has cost {regret:.1f} s of the {threshold:.1f} s that justify a switch"
        if self._saving(self._mix, model) <= 0:
            return "it would not save time in the current mix"
        if model is None:
            return None
        if sum(self._mix.values()) < self._settings.min_tokens:
            return f"fewer than {self._settings.min_tokens:g} tokens were seen lately"
        if self._allowance < self._needed(model):
            return f"{self._allowance:.1f} s of the {self._needed(model):.1f} s it may lose are earned"
        return None

    def _switch_to(self, model: Model, regret: float) -> Decision:
        gain = self._saving(self._mix, model)
        why = f"waiting has cost {regret:.1f} s, a switch takes {self._costs.switch_seconds:.1f} s"
        if model is None:
            reason = f"restore the base: without {self._fused} fused {gain:.1%} less time is needed; {why}"
            return Decision("restore", None, reason, gain)
        share = self._share(model)
        reason = f"fuse {model}: it has {share:.0%} of the tokens and {gain:.1%} less time is needed; {why}"
        return Decision("fuse", model, reason, gain)

    def _state(self) -> str:
        return "nothing is fused" if self._fused is None else f"{self._fused} stays fused"

    def _keep(self, reason: str) -> Decision:
        return Decision("keep", self._fused, reason)


def _verb(model: Model) -> str:
    return "restoring the base" if model is None else f"fusing {model}"
