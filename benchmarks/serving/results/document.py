"""The result of `lora-compose bench serve` as types. Its JSON file is read and validated here, once.

Times are seconds. `Pass.cell` is a `Cell` of the result's own plan; the file has its id.
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
"""Decimals of a second that are kept in the file."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


def _is_empty(values: Sequence[object]) -> bool:
    return not values


class RequestRow(_Part):
    """One request and its answer. Times are seconds since its pass began."""

    i: int
    """Its place in the order of sending."""
    composition: int
    prompt: int
    """Its prompt's place in the pool."""
    due: float
    """When it was due; in a closed loop the same as `sent`."""
    sent: float
    ended: float = 0.0
    times: list[float] = []
    """When each chunk with tokens came."""
    tokens: int = 0
    prompt_tokens: int = 0
    ids: Annotated[list[int], Field(exclude_if=_is_empty)] = []
    """The answer's tokens. The file has them only where they are wrong."""
    failure: str | None = None
    """`http_<status>`, a transport error's class, `wrong_length`, `wrong_answer`, `cut_stream`, …"""

    def for_file(self) -> "RequestRow":
        """A copy with rounded times, and without the tokens of a right answer."""
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
    """Since the run began."""
    seconds: float
    """From the first request sent to the last answer."""
    rows: list[RequestRow]


class FirstUse(_Part):
    """Time to first token of the same request, sent twice: the first includes one-time costs."""

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
    """Arms that could not be measured here, and why."""
    plan: Plan
    workload_digest: str
    truncated: bool
    """Whether --max-seconds ended the run early."""
    load_averages: list[tuple[float, float, float]]
    passes: list[Pass]
    cold: list[FirstUse]
    switches: list[Switch]
    differences: list[Difference]
    unlike_base: list[UnlikeBase]
    memory: list[HeldAdapter]
    timeline: Timeline | None
    caveats: Annotated[list[str], Field(exclude_if=_is_empty)] = []
    """Parts of the run that the server refused, and why."""

    @field_validator("passes", mode="before")
    @classmethod
    def _cells_of_the_plan(cls, passes: Any, info: ValidationInfo) -> Any:
        plan = info.data.get("plan")
        if plan is None or not isinstance(passes, list):
            return passes
        return [
            {**one, "cell": plan.cell(one.get("cell"))} if isinstance(one, dict) else one for one in passes
        ]

    def to_json(self) -> dict[str, Any]:
        """The content of the file."""
        return self.model_dump(mode="json", by_alias=True)


def read_result(path: Path) -> BenchmarkResult:
    """Raises InvalidRequest("no_result") for a file that is not a result."""
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
