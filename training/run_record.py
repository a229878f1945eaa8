"""`run.json`: the settings, data and results of a run, so that the run can be judged and repeated.

It is a typed document with a schema number. Older files without a number are read too.
"""

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.training.data.mixing import Kind
from lora_compose.training.recipe import Recipe
from lora_compose.training.recipe_defaults import Method

RECORD_FILE: Final = "run.json"
SCHEMA: Final = 1
PLACES: Final = (
    "output_dir",
    "logging_dir",
    "run_name",
    "resume_from_checkpoint",
    "hub_model_id",
    "push_to_hub",
)
"""Settings that have no effect on the result."""
MACHINE: Final = ("gradient_checkpointing",)
"""Settings whose values may change when a run is resumed. They do not change what is learnt."""
PACKAGES: Final = (
    "lora-compose",
    "torch",
    "transformers",
    "peft",
    "trl",
    "bitsandbytes",
    "datasets",
    "accelerate",
)


class Document(BaseModel):
    """A part of the record. Unknown fields, which a later version may write, are ignored."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)


class Source(Document):
    """A source of training rows. `digest` is a sha256 of its rows."""

    source: str
    kind: Kind
    rows: int
    digest: str
    remarks: list[str] = []
    """What was detected, repaired or left out, one sentence each."""
    dropped: int = 0
    """Bad rows that were left out."""
    left_out: dict[str, int] = {}
    """Columns that were left out, and the number of rows that had them."""


class MixShare(Document):
    """How much of the mix comes from a source. `share` is in the unit of the ratio, examples or tokens."""

    source: str
    kind: Kind
    examples: int
    tokens: int | None
    share: float


class DatasetFacts(Document):
    """The rows of the run."""

    sources: list[Source]
    mix: list[MixShare]
    train_rows: int
    held_out_rows: int


class Schedule(Document):
    """The steps of the run, and its learning rates. `last` is None if it depends on the evaluations."""

    steps: int
    warmup_steps: int
    learning_rate: float
    last_learning_rate: float | None
    epochs: float


class PreparedFacts(Document):
    """Facts of the tokenized rows. In `example`, tokens with a loss are in ⟦brackets⟧."""

    rows: int
    left_out: int
    """Rows dropped, because after truncation they contain no answer tokens."""
    example: str
    learnt_tokens: int | None = None
    tokens: int | None = None
    given: int | None = None
    """Rows in the files, with those that were dropped."""
    dropped: int = 0
    """Rows that the reader left out."""
    cut: int = 0
    """Rows that are longer than max_length. Their end is cut off."""
    endless: int = 0
    """Rows in which no answer ends with an end token."""
    longest: int | None = None
    """Tokens of the longest row after cutting."""
    same: int = 0
    """Pairs whose two answers are the same tokens."""
    good: int | None = None
    bad: int | None = None
    template: str | None = None
    end: str | None = None
    """The end tokens, separated by spaces."""
    schedule: Schedule | None = None


class RunSettings(Document):
    """The settings that decide the result. `training` and `model` hold TRL's own options."""

    method: Method
    training: dict[str, Any]
    model: dict[str, Any]
    data: dict[str, Any]
    start: dict[str, Any]
    score: dict[str, Any]
    labels: dict[str, Any] = {}
    """The rules for labels that the recipe of kto gives."""

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        """The settings of a recipe as JSON values, without output and publishing."""
        training = {name: value for name, value in recipe.training.to_dict().items() if name not in PLACES}
        parts = {name: asdict(getattr(recipe, name)) for name in ("model", "data", "start", "score")}
        rules = {name: value for name, value in asdict(recipe.labels).items() if value not in (None, [])}
        settings = {"method": recipe.method, "training": training, **parts, "labels": rules}
        return cls.model_validate_json(json.dumps(settings, default=str))


class Best(Document):
    """The best checkpoint, by metric_for_best_model. Both are None if no best checkpoint was chosen."""

    metric: float | None
    checkpoint: str | None


class RunRecord(Document):
    """A run that was started."""

    schema_number: int = Field(default=0, alias="schema")
    """0 in older files, which have no number. Their fields are the same."""
    status: Literal["running", "finished"]
    method: Method
    base: str
    settings: RunSettings
    data: DatasetFacts
    versions: dict[str, str | None]
    python: str
    device: str
    base_scores: dict[str, float] = {}
    base_intervals: dict[str, tuple[float, float]] = {}
    """The 95 % intervals of `base_scores`."""
    lower_is_better: list[str] = []
    """The names of the scores that are losses."""
    start_scores: dict[str, float] = {}
    """The scores of the adapter that training starts from (init_adapter)."""
    prepared: PreparedFacts | None = None
    base_fingerprint: str | None = None
    """The fingerprint of the base's weights. None in older files, and if they are not on this machine."""
    resolved: list[str] = []
    """The settings that were found by data and machine, one sentence each."""
    forced: list[str] = []
    """What would have stopped the run without --force, one sentence each."""

    @classmethod
    def started(cls, recipe: Recipe, data: DatasetFacts) -> Self:
        """The record of a run that starts now."""
        import torch

        return cls(
            schema=SCHEMA,
            status="running",
            method=recipe.method,
            base=recipe.model.model_name_or_path,
            settings=RunSettings.of(recipe),
            data=data,
            versions={package: _version(package) for package in PACKAGES},
            python=platform.python_version(),
            device=torch.cuda.get_device_name()
            if torch.cuda.is_available()
            else platform.processor() or "cpu",
        )

    def finished(self, **results: Any) -> "FinishedRecord":
        """The record after the end of the run. `results` has the fields that FinishedRecord adds."""
        return FinishedRecord.model_validate({**self.to_dict(), "status": "finished", **results})

    def to_dict(self) -> dict[str, Any]:
        """The content of `run.json`: the fields that were set."""
        return self.model_dump(by_alias=True, exclude_unset=True)


class FinishedRecord(RunRecord):
    """A run that ended."""

    status: Literal["finished"]
    seconds: float
    peak_memory_bytes: int
    steps: int
    epochs: float | None
    best: Best
    history: list[dict[str, Any]]
    """The trainer's log: one entry for each logging or evaluation step."""
    scores: dict[str, float]
    intervals: dict[str, tuple[float, float]] = {}
    """The 95 % intervals of `scores`. That of forgetting is paired."""
    changes: dict[str, tuple[float, tuple[float, float]]] = {}
    """The change of a score by this training, with its paired 95 % interval."""


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def start_record(
    recipe: Recipe, data: DatasetFacts, base_fingerprint: str | None, *, resume: bool, overwrite: bool = False
) -> RunRecord:
    """The record of a run that starts in the recipe's output_dir. It is not written yet.

    Raises LoraComposeError: "run_exists" if output_dir holds a run and `resume` is not set, "other_run" if
    that run has other settings or data, or another base.
    """
    record = RunRecord.started(recipe, data).model_copy(update={"base_fingerprint": base_fingerprint})
    before = None if overwrite else read_record(recipe.output)
    if before is None:
        return record
    if not resume:
        raise LoraComposeError(
            CommandCode.RUN_EXISTS,
            f"{recipe.output} already holds a run ({before.status}). Continue it with --resume, "
            "delete it and start again with --overwrite, or give another --output_dir.",
            "output_dir",
        )
    check_same_run(recipe.output, before, record)
    return record


def finish_record(directory: Path, record: RunRecord, **results: Any) -> FinishedRecord:
    """Write the record after the end of the run. `results` has the fields that FinishedRecord adds."""
    finished = record.finished(**results)
    write_record(directory, finished)
    return finished


def write_record(directory: Path, record: RunRecord) -> None:
    """Write `run.json` atomically, in place of an older one."""
    directory.mkdir(parents=True, exist_ok=True)
    scratch = directory / f".{RECORD_FILE}"
    scratch.write_text(json.dumps(record.to_dict(), indent=1) + "\n")
    scratch.replace(directory / RECORD_FILE)


def read_record(directory: Path) -> RunRecord | None:
    """The record in `directory`, a FinishedRecord if the run ended. None if there is no file.

    Raises LoraComposeError("bad_run_record").
    """
    file = directory / RECORD_FILE
    if not file.exists():
        return None
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise _bad(file, str(error)) from error
    if not isinstance(content, dict):
        raise _bad(file, "the file is not a JSON object")
    _check_schema(file, content)
    kind = FinishedRecord if content.get("status") == "finished" else RunRecord
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise _bad(file, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _check_schema(file: Path, content: Mapping[str, Any]) -> None:
    number = content.get("schema", 0)
    if not isinstance(number, int) or number > SCHEMA:
        raise _bad(
            file, f"the file has schema {number}, but this version of lora-compose reads only up to {SCHEMA}"
        )


def _bad(file: Path, reason: str) -> LoraComposeError:
    return LoraComposeError(CommandCode.BAD_RUN_RECORD, f"{file}: {reason}", "output_dir")


def check_same_run(directory: Path, before: RunRecord, now: RunRecord) -> None:
    """Refuse to resume a run with other settings, data or weights of the base.

    Raises LoraComposeError("other_run").
    """
    changed = sorted(
        _differences("settings", before.settings.model_dump(), now.settings.model_dump())
        | _differences("data", before.data.model_dump(), now.data.model_dump())
    )
    if before.base_fingerprint is not None and before.base_fingerprint != now.base_fingerprint:
        changed.append("the base's weights")
    changed = [name for name in changed if name not in MACHINE]
    if changed:
        raise LoraComposeError(
            CommandCode.OTHER_RUN,
            f"The run in {directory} was started with different values of {', '.join(changed[:5])}. Resume "
            "it with the values it was started with, give another output_dir, or start again with "
            "--overwrite.",
            "output_dir",
        )


def _differences(at: str, before: Any, now: Any) -> set[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = before.keys() | now.keys()
        return {name for key in keys for name in _differences(key, before.get(key), now.get(key))}
    return set() if before == now else {at}
