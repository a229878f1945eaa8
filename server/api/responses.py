"""The types of our responses. mypy checks the routes against them, and the OpenAPI document uses them."""

from typing import Any, Literal, NotRequired

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from lora_compose.adapters.merging.advice import Reason
from lora_compose.adapters.merging.report import MergeReport
from lora_compose.server.benchmarks.runs import Status
from lora_compose.server.fusion.switch import State

documented = with_config(ConfigDict(extra="forbid", use_attribute_docstrings=True))


@documented
class AdapterObject(TypedDict):
    """One version of an adapter."""

    object: Literal["adapter"]
    id: str
    """`name@version`, as used in canonical names."""
    name: str
    version: int
    digest: str
    """SHA-256 of its two files. The same files are the same version."""
    rank: int
    bytes: int
    created_at: int
    """Seconds since 1970."""
    source: str
    """`path`, `upload`, or `hf:` followed by the reference."""
    base: str
    """The name of the base that it was admitted for. This server's base if it was admitted for several."""
    base_fingerprint: str
    """The fingerprint of that base's weights, or `unknown`."""
    served: bool
    """False if it was registered for another base and --accept-base does not name that base."""
    expires_at: int | None
    """Seconds since 1970; null: it does not expire."""
    aliases: list[str]
    parameters: int
    coverage: dict[str, Any]
    """The layers and modules of the base that it changes."""
    warnings: list[str]
    lineage: dict[str, Any]
    """How it was made, as described by the client that registered it."""


@documented
class AdapterList(TypedDict):
    """All versions that this key may see, the newest of each name first."""

    object: Literal["list"]
    data: list[AdapterObject]


@documented
class PinObject(TypedDict):
    """A pinned adapter. It stays in host memory until it is unpinned or removed."""

    object: Literal["adapter.pin"]
    id: str
    pinned: Literal[True]


@documented
class ModelCard(TypedDict):
    """A model with vLLM's fields. Adapters also have `rank`, the base also has `max_model_len`."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: Literal["lora-compose"]
    root: str
    """The directory of the base, the newest version of an adapter, or the text of a saved composition."""
    parent: str | None
    rank: NotRequired[int]
    max_model_len: NotRequired[int]


@documented
class ModelList(TypedDict):
    """The base, then adapters, then saved compositions, each ordered by name."""

    object: Literal["list"]
    data: list[ModelCard]


@documented
class BuildErrorObject(TypedDict):
    """Why a merge could not be built."""

    code: str
    message: str


@documented
class BuildObject(TypedDict):
    """The adapter that a merge is built into. It is built in the background when a composition is saved and
    when a member changes. A stack needs no build."""

    state: Literal["ready", "building", "waiting", "failed", "unbuilt"]
    """`ready`: no request waits for a build. `waiting`: other merges are built first. `unbuilt`: a request
    builds it, because the cached merges are full or the quota of the key had no build left."""
    error: BuildErrorObject | None
    """Only of a build that failed."""


@documented
class CompositionObject(TypedDict):
    """A composition: its text, and the versions it stands for now."""

    object: Literal["composition"]
    name: str | None
    model: str
    resolved: str | None
    """The canonical name, with versions instead of names and aliases. Responses carry it in a header. Null if
    it cannot be served now, for example because a member was registered for another base."""
    method: str
    rank: int | None
    """Null if it cannot be served now."""
    build: BuildObject


@documented
class WarningObject(TypedDict):
    """A likely fault of a composition. It does not keep the composition from being saved or served."""

    code: Reason
    """`same_directions`: two members at full strength change the same directions. `much_larger`: the deltas
    of one member are much larger than those of another. `no_shared_modules`: two members change different
    modules. `zero_effect`: a member changes nothing. `different_bases`: two members were trained on different
    bases."""
    message: str
    suggested: str | None
    """The composition with other weights, to be tried first. Null if no weights are better."""


@documented
class SavedComposition(CompositionObject):
    """A composition that was saved, with what is likely to be wrong with it."""

    warnings: list[WarningObject]


@documented
class PredictedComposition(CompositionObject):
    """The predicted cost of a composition. A merge is built for this and kept."""

    bytes: int
    error: float | None
    """Relative error against the exact stack; 0 for a stack."""
    report: MergeReport | None
    warnings: list[WarningObject]


@documented
class CompositionList(TypedDict):
    """All saved compositions that this key may see, ordered by name."""

    object: Literal["list"]
    data: list[CompositionObject]


@documented
class SwitchObject(TypedDict):
    """The last switch of the base weights that succeeded."""

    seconds: float
    stalled_seconds: float
    """The part of `seconds` for which generation was paused."""


@documented
class FusionObject(TypedDict):
    """The composition that is fused into the base weights."""

    object: Literal["fusion"]
    state: State
    model: str | None
    progress: float | None
    """Progress of the current switch, from 0 to 1."""
    last_switch: SwitchObject | None


@documented
class PreparedPart(TypedDict):
    """One build in the workers' host memory."""

    id: str
    state: Literal["preparing", "prepared"]
    requests: int
    """Requests that wait for it or use it."""
    pinned: bool
    workers: int
    """Number of workers that have it."""
    bytes: int
    prepare_seconds: float | None


@documented
class HostMemoryObject(TypedDict):
    """The adapters in the workers' host memory."""

    capacity: int
    adapters: list[PreparedPart]


@documented
class SlotsObject(TypedDict):
    """The slots in use. For each one, the number of requests in flight by canonical name."""

    slots: int
    compositions: list[dict[str, int]]


@documented
class ResidencyObject(TypedDict):
    """The adapters in host memory and in slots, as the scheduler and the workers report them."""

    object: Literal["residency"]
    runtime_weights: bool
    """Whether one build of an adapter serves all weights."""
    host: HostMemoryObject
    active: SlotsObject
    fused: str | None
    queued: int


@documented
class BenchmarkObject(TypedDict):
    """One benchmark run."""

    object: Literal["benchmark"]
    id: str
    created: int
    plan: dict[str, Any]
    """The complete plan. It can be sent again as a request."""
    status: Status
    progress: dict[str, Any] | None
    error: dict[str, str] | None
    """`code` and `message` if it did not succeed."""


@documented
class BenchmarkList(TypedDict):
    """All benchmarks, the newest first."""

    object: Literal["list"]
    data: list[BenchmarkObject]


@documented
class VersionObject(TypedDict):
    """What runs here."""

    version: str
    """The version of vLLM."""
    lora_compose_version: str


@documented
class LoadObject(TypedDict):
    """How busy the server is."""

    server_load: int
    """Requests that are being answered, on the routes that take a composition."""


@documented
class AliveObject(TypedDict):
    """The process is alive."""

    status: Literal["alive"]


@documented
class ReadyObject(TypedDict):
    """The server is ready for traffic."""

    status: Literal["ready"]
