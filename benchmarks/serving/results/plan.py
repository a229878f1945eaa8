"""The plan of one run: arms, cells and repeats. The result contains it, so the run can be repeated.

An arm is a way to serve some adapters:

- `stack:4`: four adapters, stacked by the request
- `merge:4`: the same four, merged into one adapter beforehand
- `fused:4`: the same four, folded into the base
- `residual:4`: requests for the base while these four are folded into it
- `vllm:4`, `peft:4`: the exact sum of the four as one adapter, served by stock vLLM or transformers + PEFT
- `direct`: the base behind vLLM's own HTTP app, with our plugin in the engine but without our HTTP layer
- `weights:2`: two adapters, stacked with other weights in each composition
- `llamacpp:2`, `llamacpp-weights:2`: the same on llama.cpp's server; `llamacpp:0` is the base there, and
  `llamacpp` alone stands for the arms of llama.cpp that answer what the other arms of the run answer

The plan also says which compositions the requests use, and how often.
"""

import itertools
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, Self, get_args

from pydantic import ConfigDict, with_config

from lora_compose.adapters.dataclass_options import ATTRIBUTE_DOCSTRINGS
from lora_compose.adapters.errors import Code, CommandCode, InvalidRequest

Kind = Literal[
    "base",
    "single",
    "stack",
    "weights",
    "merge",
    "fused",
    "residual",
    "direct",
    "vllm",
    "peft",
    "llamacpp",
    "llamacpp-weights",
]
Serves = Literal["lora-compose", "direct", "vllm", "peft", "llamacpp"]
KINDS: Final = get_args(Kind)
ALONE: Final = ("base", "single", "direct")
FUSED: Final = ("fused", "residual")
WEIGHTED: Final = ("weights", "llamacpp-weights")
EXACT: Final = (
    *("base", "direct", "single", "stack", "weights", "fused", "vllm", "peft"),
    *("llamacpp", "llamacpp-weights"),
)
"""Kinds whose answers must equal those of the exact stack of their members (those of the base without
members).
"""
EVERYTHING_ON_LLAMACPP: Final = "llamacpp"
QUICK_SECONDS = 270.0
"""Time limit of a quick plan. The rest of five minutes is for the last pass and for stopping the servers."""
NAME = re.compile(rf"({'|'.join(KINDS)})(?::(0|[1-9][0-9]?))?(?:@r([1-9][0-9]{{0,2}}))?")


@dataclass(frozen=True)
class Arm:
    """One way to serve `members` adapters. `rank` is set if they are generated."""

    kind: Kind
    members: int
    rank: int | None = None

    @property
    def name(self) -> str:
        """The arm as text, such as `stack:4` or `stack:2@r16`."""
        counted = self.kind if self.kind in ALONE else f"{self.kind}:{self.members}"
        return counted if self.rank is None else f"{counted}@r{self.rank}"

    @property
    def server(self) -> Serves:
        """The kind of server that serves this arm."""
        of: dict[str, Serves] = {"direct": "direct", "vllm": "vllm", "peft": "peft"}
        if self.kind.startswith("llamacpp"):
            return "llamacpp"
        return of.get(self.kind, "lora-compose")

    @property
    def on_llamacpp(self) -> "Arm | None":
        """The arm of llama.cpp that has the same answers. None for an arm that llama.cpp cannot serve."""
        if self.rank is not None or self.kind not in {"base", "single", "stack", "weights"}:
            return None
        return Arm("llamacpp-weights" if self.kind == "weights" else "llamacpp", self.members)


def parse_arm(text: str) -> Arm:
    """The arm that `text` names. Raises InvalidRequest("invalid_arm")."""
    match = NAME.fullmatch(text.strip())
    needs_none = match is not None and (match[1] in ALONE or (match[2] == "0" and match[1] != "llamacpp"))
    if match is None or (needs_none and match[2]):
        known = (
            "base, direct, single, stack:K, weights:K, merge:K, fused:K, residual:K, vllm:K, peft:K, "
            "llamacpp, llamacpp:K, llamacpp-weights:K"
        )
        raise InvalidRequest(CommandCode.INVALID_ARM, f"{text!r} is not an arm. Arms are {known}.", "arms")
    kind: Kind = match[1]  # type: ignore[assignment]
    members = (
        0 if kind in {"base", "direct"} else int(match[2] or (1 if kind in {"single", "vllm", "peft"} else 2))
    )
    return Arm(kind, members, int(match[3]) if match[3] else None)


def parse_arms(text: str) -> tuple[Arm, ...]:
    """The arms in a comma-separated list.

    The base is always first, because the others are compared with it.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    arms = [Arm("base", 0), *(parse_arm(part) for part in parts if part != EVERYTHING_ON_LLAMACPP)]
    if EVERYTHING_ON_LLAMACPP in parts:
        arms += [arm.on_llamacpp for arm in arms if arm.on_llamacpp is not None]
    return tuple(dict.fromkeys(arms))


def choices(adapters: Sequence[str], members: int, count: int) -> list[tuple[str, ...]]:
    """`count` different sets of `members` adapters. The first set has the first adapters.

    Raises InvalidRequest("too_few_adapters") if there are fewer sets.
    """
    sets = list(itertools.islice(itertools.combinations(adapters, members), count))
    if len(sets) < count:
        raise InvalidRequest(
            Code.TOO_FEW_ADAPTERS,
            f"{len(adapters)} adapters give {len(sets)} different sets of {members}, but {count} are needed. "
            "Use more --adapters or fewer --compositions.",
            "adapters",
        )
    return sets


def weighted(adapters: Sequence[str], members: int, count: int) -> list[tuple[str, ...]]:
    """`count` times the first `members` adapters, with other weights each time: `sql:0.30`, `polite:1.20`.

    Raises InvalidRequest("too_few_adapters")."""
    (chosen,) = choices(adapters, members, 1)
    steps = [number / count for number in range(count)]
    return [
        tuple(
            f"{name}:{0.3 + 0.9 * (step if at % 2 == 0 else 1 - step):.3f}" for at, name in enumerate(chosen)
        )
        for step in steps
    ]


def model_of(arm: Arm, base: str, members: Sequence[str], merge: str) -> str:
    """The `model` of a request to our server.

    `merge` is a method with options, such as `ties,density=0.5`.
    """
    if arm.kind in {"base", "residual"}:
        return base
    joined = "+".join(members)
    if arm.kind != "merge":
        return joined
    method, _, options = merge.partition(",")
    return f"{method}({joined}{',' + options if options else ''})"


def check_skew(text: str) -> None:
    """Raises ValueError if `text` is not a skew."""
    name, _, exponent = text.partition(":")
    numeric = exponent.replace(".", "", 1).isdigit()
    if not (text in {"identical", "uniform", "distinct"} or (name == "zipf" and numeric)):
        raise ValueError(f"--skew ({text}) must be identical, uniform, distinct or zipf:S, such as zipf:1.1")


def spread_over(count: int, skew: str, draw: random.Random) -> Iterator[int]:
    """An endless sequence of indices below `count`. `distinct` uses all indices in turn."""
    weights = [1.0] * count
    if skew.startswith("zipf:"):
        weights = [1 / (rank + 1) ** float(skew.removeprefix("zipf:")) for rank in range(count)]
    turn = 0
    while True:
        if skew == "identical":
            yield 0
        elif skew == "distinct":
            yield turn % count
            turn += 1
        else:
            yield draw.choices(range(count), weights)[0]


Loop = Literal["closed", "open"]


@dataclass(frozen=True)
class Cell:
    """A load. Closed loop: `concurrency` requests in flight. Open loop: `rate` requests a second."""

    loop: Loop
    concurrency: int | None = None
    rate: float | None = None
    is_heat_map: bool = False
    """Whether this cell measures generated adapters, for the heat map of stacking."""

    @property
    def load(self) -> str:
        """The load as text, such as `closed loop, 4 in flight` or `open loop, 2.5/s`."""
        if self.loop == "closed":
            return f"closed loop, {self.concurrency} in flight"
        return f"open loop, {self.rate:g}/s"

    @property
    def id(self) -> str:
        """The name of the cell in the result and the tables: `heat map`, or the load."""
        return "heat map" if self.is_heat_map else self.load


def _listed(**settings: Any) -> dict[str, Any]:
    """Metadata of a field whose option is one text with commas."""
    return {"separator": ",", **settings}


@with_config(ConfigDict(**ATTRIBUTE_DOCSTRINGS, extra="forbid"))
@dataclass(frozen=True)
class Plan:
    """The options of `lora-compose bench serve` that say what is measured. The strings are their help.

    Raises ValueError for an invalid value, with the flag and the value.
    """

    arms: str = "base,single,stack:2,stack:4,merge:4,fused:4,residual:4,vllm:1,vllm:4,peft:1"
    """Arms to compare, separated by commas."""
    concurrency: tuple[int, ...] = field(default=(1, 8), metadata=_listed())
    """Requests in flight in each closed loop, separated by commas."""
    rates: tuple[float, ...] = field(default=(), metadata=_listed(show_default=False))
    """Requests a second in each open loop, separated by commas. Default: 0.3, 0.6 and 0.9 of the base's
    measured throughput."""
    requests: int = 40
    """Requests in one pass over an arm."""
    repeats: int = 5
    """Passes over each arm at each load. Every second repeat runs in reverse order."""
    prompt_tokens: int = 32
    """Exact length of every prompt."""
    output_tokens: int = 32
    """Exact length of every answer."""
    compositions: int = 1
    """Number of different compositions that an arm's requests use."""
    skew: str = "uniform"
    """How requests are spread over compositions: identical, uniform, zipf:S or distinct."""
    burstiness: float = 1.0
    """Shape of the gamma distribution of the open loop's gaps: 1 is Poisson, below 1 is bursty."""
    merge: str = "svd"
    """Method of the merge arms, with options: ties,density=0.5."""
    goodput: tuple[str, ...] = field(default=("ttft:500", "tpot:100"), metadata=_listed())
    """Objectives in ms, as in vLLM's --goodput: ttft, tpot, e2el. A good request meets all of them."""
    pool: int = field(default=8, metadata={"flag": None})
    """Different prompts of a pass. Each request has its own cache salt, so no request is a prefix hit."""
    ranks: tuple[int, ...] = field(default=(), metadata=_listed(show_default=False))
    """Ranks of generated adapters for a heat map of stacking, separated by commas. Default: no heat map."""
    heat_members: tuple[int, ...] = field(default=(1, 2, 4), metadata={"flag": None})
    """Sizes of the heat map's stacks."""
    timeline_seconds: float = 20.0
    """Seconds of traffic during which adapters are registered and a stack is fused. 0: no timeline."""
    max_seconds: float | None = field(default=None, metadata={"show_default": False})
    """Start no pass that would end later than this many seconds after the start of the command. The result
    says what is missing."""
    seed: int = 0
    """Seed of prompts, times and compositions."""

    def __post_init__(self) -> None:
        for flag in ("requests", "repeats", "prompt_tokens", "output_tokens", "compositions", "pool"):
            if getattr(self, flag) < 1:
                raise ValueError(f"--{flag.replace('_', '-')} ({getattr(self, flag)}) must be at least 1")
        if self.output_tokens < 2:
            raise ValueError(
                "--output-tokens (1) must be at least 2, because one token has no time between tokens"
            )
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
        """All arms in the order of the first repeat. The base is first."""
        return parse_arms(self.arms)

    @property
    def heat_arms(self) -> tuple[Arm, ...]:
        """Stacks of generated adapters."""
        return tuple(Arm("stack", k, rank) for rank in self.ranks for k in self.heat_members)

    def cells(self) -> list[Cell]:
        """All cells. Closed loops are first, because they measure the capacity of the machine."""
        closed = [Cell("closed", concurrency=count) for count in self.concurrency]
        return closed + [Cell("open", rate=rate) for rate in self.rates]

    @property
    def heat_cell(self) -> Cell:
        """The load at which generated adapters are measured."""
        return Cell("closed", concurrency=max(self.concurrency, default=4), is_heat_map=True)

    def cell(self, cell_id: str) -> Cell:
        """The cell with this id. Raises ValueError if the plan has no such cell."""
        for cell in (*self.cells(), self.heat_cell):
            if cell.id == cell_id:
                return cell
        raise ValueError(f"{cell_id!r} is not a cell of the plan")

    def quick(self) -> Self:
        """A plan that takes less than five minutes: short passes at one load of each kind.

        The arms are in the order of their importance. On a slow machine, the time limit leaves out repeats
        and then arms.
        """
        return replace(
            self,
            arms="base,single,stack:4,fused:4,residual:4,merge:4,vllm:1,peft:1,stack:2",
            concurrency=(4,),
            requests=32,
            pool=4,
            timeline_seconds=min(self.timeline_seconds, 10.0),
            max_seconds=min(self.max_seconds or QUICK_SECONDS, QUICK_SECONDS),
        )


def objectives(goodput: tuple[str, ...]) -> dict[str, float]:
    """Limits in seconds by metric.

    Raises ValueError if a text is not ttft, tpot or e2el with milliseconds.
    """
    limits = {}
    for text in goodput:
        name, _, limit = text.partition(":")
        if name not in {"ttft", "tpot", "e2el"} or not limit.replace(".", "", 1).isdigit():
            raise ValueError(f"--goodput ({text}) must be ttft:MS, tpot:MS or e2el:MS")
        limits[name] = float(limit) / 1000
    return limits
