"""The settings that are tried, and the choice between them. Pure functions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import geometric_mean
from typing import Any, Final

NOISE: Final = 0.05
"""The defaults are kept if nothing else is faster by more than this share."""


@dataclass(frozen=True)
class Setting:
    """How a server computes."""

    threads: int
    dtype: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables that choose it."""
        return {"OMP_NUM_THREADS": str(self.threads)}

    @property
    def flags(self) -> list[str]:
        """The options of `serve` that choose it."""
        return ["--dtype", self.dtype]

    def command(self, model: str) -> str:
        """How to serve `model` with it."""
        return f"OMP_NUM_THREADS={self.threads} lora-compose serve --model {model} --dtype {self.dtype}"


@dataclass(frozen=True)
class Tried:
    """A setting and what it gave: tokens a second by load, and the memory of the server in bytes."""

    setting: Setting
    speeds: Mapping[str, float]
    memory: int = 0
    failure: str | None = None
    """Why it could not be measured."""

    @property
    def speed(self) -> float:
        """The geometric mean over the loads. 0 if it could not be measured."""
        return geometric_mean(self.speeds.values()) if self.speeds else 0.0

    def to_json(self) -> dict[str, Any]:
        """All facts, for `--json`."""
        facts = {"threads": self.setting.threads, "dtype": self.setting.dtype, "speed": self.speed}
        return {**facts, "speeds": dict(self.speeds), "memory": self.memory, "failure": self.failure}


def settings_to_try(default: Setting, cores: int, has_bfloat16: bool) -> list[Setting]:
    """The default, then every other combination of some threads and the data types that can be fast here."""
    threads = sorted({max(1, cores // 2), max(1, cores - 1), cores, default.threads})
    dtypes = ["float32", "bfloat16"] if has_bfloat16 else ["float32"]
    found = [Setting(count, dtype) for dtype in dtypes for count in threads]
    return list(dict.fromkeys([default, *found]))


def best_of(tried: Sequence[Tried], default: Setting) -> Tried | None:
    """The fastest, or the default if the fastest is not faster by more than NOISE. None if all failed."""
    measured = [one for one in tried if one.failure is None]
    if not measured:
        return None
    best = max(measured, key=lambda one: one.speed)
    own = next((one for one in measured if one.setting == default), None)
    return own if own is not None and best.speed <= (1 + NOISE) * own.speed else best
