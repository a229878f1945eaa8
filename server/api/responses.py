"""What our routes answer, as types: mypy holds the routes to them, and the OpenAPI document is made of
them."""

from typing import Any, Literal, NotRequired

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from lora_compose.adapters.merging.report import MergeReport
from lora_compose.server.benchmarks.runs import Status
from lora_compose.server.fusion.switch import State

told = with_config(ConfigDict(extra="forbid", use_attribute_docstrings=True))


@told
class AdapterObject(TypedDict):
    """One version of an adapter."""

    object: Literal["adapter"]
    id: str
    """`name@version`, what a canonical name is made of."""
    name: str
    version: int
    digest: str
    """SHA-256 of its two files: the same bytes are the same version."""
    rank: int
    bytes: int
    created_at: int
    """Seconds since 1970."""
    source: str
    """`path`, `upload`, or `hf:` and the reference."""
    base: str
    aliases: list[str]
    parameters: int
    coverage: dict[str, Any]
    """Which layers and modules of the base it changes."""
    warnings: list[str]
    lineage: dict[str, Any]
    """How it came about, as whoever registered it told it."""


@told
class AdapterList(TypedDict):
    """Every version this key sees, the newest of a name first."""

    object: Literal["list"]
    data: list[AdapterObject]


@told
class PinObject(TypedDict):
    """It stays in host memory until it is unpinned or removed."""

    object: Literal["adapter.pin"]
    id: str
    pinned: Literal[True]


@told
class ModelCard(TypedDict):
    """vLLM's fields. An adapter's has `rank`, the base's `max_model_len`."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: Literal["lora-compose"]
    root: str
    """A directory, an adapter's newest version, or what a saved composition says."""
    parent: str | None
    rank: NotRequired[int]
    max_model_len: NotRequired[int]


@told
class ModelList(TypedDict):
    """The base first, then adapters and saved compositions by name."""

    object: Literal["list"]
    data: list[ModelCard]


@told
class CompositionObject(TypedDict):
    """A composition as it was written, and what it stands for now."""

    object: Literal["composition"]
    name: str | None
    model: str
    resolved: str
    """With versions in place of names and aliases: the canonical name that answers bear."""
    method: str
    rank: int


@told
class PredictedComposition(CompositionObject):
    """What it would take. A merge is built to know that, and kept."""

    bytes: int
    error: float | None
    """Relative distance from the exact stack; 0 for a stack."""
    report: MergeReport | None


@told
class CompositionList(TypedDict):
    """Every saved composition this key sees, by name."""

    object: Literal["list"]
    data: list[CompositionObject]


@told
class SwitchObject(TypedDict):
    """The last one that succeeded."""

    seconds: float
    stalled_seconds: float
    """Of those, how long generation stood still."""


@told
class FusionObject(TypedDict):
    """What is folded into the base."""

    object: Literal["fusion"]
    state: State
    model: str | None
    progress: float | None
    """Of the switch that goes on, 0 to 1."""
    last_switch: SwitchObject | None


@told
class PreparedPart(TypedDict):
    """One build in the workers' host memory."""

    id: str
    state: Literal["preparing", "prepared"]
    requests: int
    """Those that wait for it or use it."""
    pinned: bool
    workers: int
    """How many say that they have it."""
    bytes: int
    prepare_seconds: float | None


@told
class HostMemoryObject(TypedDict):
    """Adapters that need no building."""

    capacity: int
    adapters: list[PreparedPart]


@told
class SlotsObject(TypedDict):
    """What is in use; for each slot, requests in flight by canonical name."""

    slots: int
    compositions: list[dict[str, int]]


@told
class ResidencyObject(TypedDict):
    """Where adapters are now, by our books and by the workers' own."""

    object: Literal["residency"]
    runtime_weights: bool
    """Whether one build serves every weighting of its members."""
    host: HostMemoryObject
    active: SlotsObject
    fused: str | None
    queued: int


@told
class BenchmarkObject(TypedDict):
    """One run."""

    object: Literal["benchmark"]
    id: str
    created: int
    plan: dict[str, Any]
    """As it could be sent again."""
    status: Status
    progress: dict[str, Any] | None
    error: dict[str, str] | None
    """Why it has not succeeded: `code` and `message`."""


@told
class BenchmarkList(TypedDict):
    """The newest first."""

    object: Literal["list"]
    data: list[BenchmarkObject]


@told
class AliveObject(TypedDict):
    """The process answers."""

    status: Literal["alive"]


@told
class ReadyObject(TypedDict):
    """Send traffic."""

    status: Literal["ready"]
