"""How readily the policy fuses. The flags are `serve`'s."""

from dataclasses import dataclass

from pydantic import with_config

from adapters.dataclass_options import ATTRIBUTE_DOCSTRINGS


@with_config(ATTRIBUTE_DOCSTRINGS)
@dataclass(frozen=True)
class Settings:
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
