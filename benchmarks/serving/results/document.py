"""The result of `lora-compose bench serve` as types. This module alone reads and validates the JSON file.

Times are seconds. `Pass.cell` is a `Cell` of the result's plan; the file contains the id of the cell.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from lora_compose.adapters.errors import CommandCode, InvalidRequest
from lora_compose.benchmarks.serving.results.plan import Cell, Plan

Schema = Literal["lora-compose-bench/1"]
SCHEMA: Schema = "lora-compose-bench/1"
DECIMALS = 5
"""Number of decimals of times in the file."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


def _is_empty(values: Sequence[object]) -> bool:
    return not values


class RequestRow(_Part):
    """One request and its answer. Times are seconds since its pass began."""

    i: int
    """Index of the request, in the order of sending."""
    composition: int
    prompt: int
    """Index of the prompt in the pool."""
    due: float
    """When the request was due. In a closed loop this equals `sent`."""
    sent: float
    ended: float = 0.0
    times: list[float] = []
    """Arrival time of each chunk with tokens."""
    tokens: int = 0
    prompt_tokens: int = 0
    ids: Annotated[list[int], Field(exclude_if=_is_empty)] = []
    """The tokens of the answer. The file contains them only for wrong answers."""
    failure: str | None = None
    """`http_<status>`, a transport error's class, `wrong_length`, `wrong_answer`, `cut_stream`, …"""

    def for_file(self) -> "RequestRow":
        """A copy with rounded times. The tokens of a right answer are left out."""
        times = {name: round(getattr(self, name), DECIMALS) for name in ("due", "sent", "ended")}
        rounded = [round(time, DECIMALS) for time in self.times]
        ids = self.ids if self.failure == "wrong_answer" else []
        return self.model_copy(update={**times, "times": rounded, "ids": ids})


class Pass(_Part):
    """All requests of one arm in one cell in one repeat."""

    cell: Annotated[Cell, PlainSerializer(lambda cell: cell.id)]
    arm: str
    repeat: int
    began: float
    """Start of the pass, since the run began."""
    seconds: float
    """Time from the first request sent to the end of the last answer."""
    rows: list[RequestRow]


class FirstUse(_Part):
    """Time to first token of one request, sent twice. The first time includes one-time costs."""

    arm: str
    model: str
    first_use_ttft: float
    warm_ttft: float


class Switch(_Part):
    """A switch of the base weights; `model` is None for a restore."""

    what: Literal["fuse", "restore"]
    model: str | None
    seconds: float


class Difference(_Part):
    """How far an arm's answers are from the exact stack's. Log-probabilities are in nats."""

    arm: str
    model: str
    prompts: int
    same_answers: float
    """Share of the prompts with the same greedy answer."""
    mean_abs_logprob: float
    max_abs_logprob: float


class UnlikeBase(_Part):
    """Number of prompts that a composition answers differently from the base."""

    arm: str
    model: str
    prompts: int


class HeldAdapter(_Part):
    """An adapter or composition in the engine's host memory."""

    id: str
    bytes: int
    prepare_seconds: float


class AdapterVersion(_Part):
    """An adapter that was measured."""

    id: str
    digest: str | None
    rank: int | None


class Event(_Part):
    """Something done to the server during the timeline, `t` seconds after it began."""

    t: float
    seconds: float
    what: str


class Sample(_Part):
    """The server's counters, `t` seconds after the timeline began."""

    t: float
    counters: dict[str, float]


class Timeline(_Part):
    """Requests of an open loop while adapters arrive and a stack is fused."""

    seconds: float
    rate: float
    """Requests a second."""
    rows: list[RequestRow]
    events: list[Event]
    samples: list[Sample]


class Machine(_Part):
    """Where the run was made, and with which commit and versions."""

    commit: str | None
    uncommitted_changes: bool
    python: str
    versions: dict[str, str]
    cpu: str
    cpus: int | None
    platform: str


class BenchmarkResult(_Part):
    """A whole run."""

    schema_id: Annotated[Schema, Field(alias="schema")] = SCHEMA
    created: str
    """ISO 8601, UTC."""
    seconds: float
    command: list[str]
    machine: Machine
    environment: dict[str, str]
    started: bool
    """Whether the run started the servers itself."""
    commands: dict[str, list[str]]
    """Command of each server that was started."""
    base: str
    adapters: list[AdapterVersion]
    skipped: dict[str, str]
    """Arms that could not be measured here, with the reasons."""
    plan: Plan
    workload_digest: str
    truncated: bool
    """Whether --max-seconds ended the run early."""
    load_averages: list[tuple[float, float, float]]
    others_busy: Annotated[list[float], Field(exclude_if=_is_empty)] = []
    """Share of all processors that other programs used while the run sent nothing: first, and after each
    repeat."""
    stolen: Annotated[list[float], Field(exclude_if=_is_empty)] = []
    """Share of the processors' time in each repeat that the hypervisor gave to other machines."""
    passes: list[Pass]
    cold: list[FirstUse]
    switches: list[Switch]
    differences: list[Difference]
    unlike_base: list[UnlikeBase]
    memory: list[HeldAdapter]
    timeline: Timeline | None
    caveats: Annotated[list[str], Field(exclude_if=_is_empty)] = []
    """Parts of the run that the server refused, with the reasons."""

    @field_validator("passes", mode="before")
    @classmethod
    def _cells_of_the_plan(cls, passes: Any, info: ValidationInfo) -> Any:
        plan = info.data.get("plan")
        if plan is None or not isinstance(passes, list):
            return passes
        return [
            {**entry, "cell": plan.cell(entry.get("cell"))} if isinstance(entry, dict) else entry
            for entry in passes
        ]

    def to_json(self) -> dict[str, Any]:
        """The content of the file."""
        return self.model_dump(mode="json", by_alias=True)


def read_result(path: Path) -> BenchmarkResult:
    """Read a result. Raises InvalidRequest("no_result") if the file is not a result."""
    try:
        return BenchmarkResult.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidRequest(
            CommandCode.NO_RESULT, f"{path} cannot be read as a result: {error}", "result"
        ) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "file"
        message = f"{path} was not written by `lora-compose bench serve` ({where}: {first['msg']})"
        raise InvalidRequest(CommandCode.NO_RESULT, message, "result") from error
