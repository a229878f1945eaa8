"""What one run measures: arms, cells, repeats. Written into the result as it is, so it can be run again."""

from dataclasses import dataclass, replace
from typing import Literal, Self

from benchmarks.latency.arms import Arm, parse_arms
from benchmarks.latency.skew import check_skew

Loop = Literal["closed", "open"]


@dataclass(frozen=True)
class Cell:
    """A load. Closed: `concurrency` requests in flight, for capacity. Open: `rate` a second, for latency."""

    loop: Loop
    concurrency: int | None = None
    rate: float | None = None
    is_heat_map: bool = False
    """Whether generated adapters are measured in it, for the heat map of stacking."""

    @property
    def load(self) -> str:
        """`closed loop, 4 in flight`, `open loop, 2.5/s`."""
        if self.loop == "closed":
            return f"closed loop, {self.concurrency} in flight"
        return f"open loop, {self.rate:g}/s"

    @property
    def id(self) -> str:
        """Its name in the result and the tables: `heat map`, or its load."""
        return "heat map" if self.is_heat_map else self.load


@dataclass(frozen=True)
class Plan:
    """Raises ValueError, naming the flag and its value, for what cannot work."""

    arms: str = "base,single,stack:2,stack:4,merge:4,fused:4,residual:4,vllm:1,vllm:4,peft:1"
    concurrency: tuple[int, ...] = (1, 8)
    """Requests in flight of the closed loops."""
    rates: tuple[float, ...] = ()
    """Requests a second of the open loops; empty: 0.3, 0.6, 0.9 of what the base can do, measured first."""
    requests: int = 40
    """Of one pass over an arm."""
    repeats: int = 5
    """Passes over each arm in each cell; every other one in reverse order."""
    prompt_tokens: int = 32
    output_tokens: int = 32
    """Every answer has exactly this length: `ignore_eos`, checked in `usage`."""
    compositions: int = 1
    """Different compositions an arm's requests are spread over."""
    skew: str = "uniform"
    """How they are spread: identical, uniform, zipf:S, distinct."""
    burstiness: float = 1.0
    """Shape of the gamma distribution of the open loop's gaps: 1 is Poisson, below 1 bursts."""
    merge: str = "svd"
    """Method of the merge arms, with options: `ties,density=0.5`."""
    goodput: tuple[str, ...] = ("ttft:500", "tpot:100")
    """Objectives in ms, as vLLM's --goodput: what counts as good is all of them at once."""
    pool: int = 8
    """Different prompts of a pass. Each request has a cache salt of its own, so none is a prefix hit."""
    ranks: tuple[int, ...] = ()
    """Ranks of generated adapters for the heat map of stacking; empty: none."""
    heat_members: tuple[int, ...] = (1, 2, 4)
    timeline_seconds: float = 20.0
    """Length of the timeline of loading, fusing and restoring under traffic; 0: none."""
    max_seconds: float | None = None
    """No pass begins later than this; what is missing is said in the result."""
    seed: int = 0

    def __post_init__(self) -> None:
        for flag in ("requests", "repeats", "prompt_tokens", "output_tokens", "compositions", "pool"):
            if getattr(self, flag) < 1:
                raise ValueError(f"--{flag.replace('_', '-')} ({getattr(self, flag)}) must be at least 1")
        if self.output_tokens < 2:
            raise ValueError("--output-tokens (1) must be at least 2: there is no time between tokens else")
        for flag, values in (("concurrency", self.concurrency), ("rates", self.rates), ("ranks", self.ranks)):
            if any(not 0 < value < 1e6 for value in values):
                raise ValueError(f"--{flag} ({','.join(map(str, values))}) must be above 0")
        if not 0 < self.burstiness < 1e6:
            raise ValueError(f"--burstiness ({self.burstiness}) must be above 0")
        check_skew(self.skew)
        objectives(self.goodput)
        parse_arms(self.arms)

    @property
    def all_arms(self) -> tuple[Arm, ...]:
        """In the order of the first repeat, base first."""
        return parse_arms(self.arms)

    @property
    def heat_arms(self) -> tuple[Arm, ...]:
        """Stacks of generated adapters."""
        return tuple(Arm("stack", k, rank) for rank in self.ranks for k in self.heat_members)

    def cells(self) -> list[Cell]:
        """Closed loops first: they say what the machine can do."""
        closed = [Cell("closed", concurrency=count) for count in self.concurrency]
        return closed + [Cell("open", rate=rate) for rate in self.rates]

    @property
    def heat_cell(self) -> Cell:
        """The load at which generated adapters are measured."""
        return Cell("closed", concurrency=max(self.concurrency, default=4), is_heat_map=True)

    def cell(self, cell_id: str) -> Cell:
        """The cell of this plan that has this id. Raises ValueError if there is none."""
        for cell in (*self.cells(), self.heat_cell):
            if cell.id == cell_id:
                return cell
        raise ValueError(f"{cell_id!r} is not a cell of the plan")

    def quick(self) -> Self:
        """A look in a few minutes: short passes at one load of each kind."""
        return replace(
            self,
            arms="base,single,stack:2,stack:4,merge:4,fused:4,residual:4,vllm:1,peft:1",
            concurrency=(4,),
            requests=32,
            pool=4,
            timeline_seconds=min(self.timeline_seconds, 10.0),
        )


def objectives(goodput: tuple[str, ...]) -> dict[str, float]:
    """Seconds by metric. Raises ValueError for anything but ttft, tpot and e2el with milliseconds."""
    found = {}
    for text in goodput:
        name, _, limit = text.partition(":")
        if name not in {"ttft", "tpot", "e2el"} or not limit.replace(".", "", 1).isdigit():
            raise ValueError(f"--goodput ({text}) must be ttft:MS, tpot:MS or e2el:MS")
        found[name] = float(limit) / 1000
    return found
