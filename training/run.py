"""One training run: prepare everything once, then train, save, score and write the record."""

import json
import resource
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lora_compose.adapters.peft.files import CONFIG_FILE, WEIGHTS_FILE
from lora_compose.training.base_model import base_fingerprint, load_base
from lora_compose.training.checkpoints import last_whole_checkpoint
from lora_compose.training.checks import check_template, prepared_facts
from lora_compose.training.data.rows import conversation_of
from lora_compose.training.dataset import Examples, load_examples
from lora_compose.training.prepared_table import prepared_table
from lora_compose.training.recipe import Recipe
from lora_compose.training.remarks import remarks
from lora_compose.training.resolving import resolve
from lora_compose.training.run_record import (
    RECORD_FILE,
    FinishedRecord,
    RunRecord,
    finish_record,
    start_record,
    write_record,
)
from lora_compose.training.run_report import draw_curves
from lora_compose.training.spoilers import refuse_spoiled, spoilers
from lora_compose.training.trainers import Scorer, make_trainer

ADAPTER_DIR = "adapter"
MODEL_DIR = "model"
"""The directory of the model, in a run that trained all weights."""
CURVES_FILE = "curves.png"

OnProgress = Callable[[str], None]


@dataclass(frozen=True)
class FinishedRun:
    """A finished run."""

    directory: Path
    record: FinishedRecord

    @property
    def adapter(self) -> Path:
        """The directory with the adapter's two files."""
        return self.directory / ADAPTER_DIR

    @property
    def scores(self) -> dict[str, float]:
        """The scores on the recipe's tasks: domain, general, forgetting."""
        return self.record.scores


@dataclass(frozen=True)
class PreparedRun:
    """Everything that a run needs for training, scoring and its record, built once, before training."""

    directory: Path
    recipe: Recipe
    """The recipe with the settings that were found by data and machine."""
    dataset: Examples
    trainer: Any
    """TRL's trainer of the method. It holds the model with its adapter."""
    scorer: Scorer
    record: RunRecord
    checkpoint: str | None
    """The checkpoint to resume from."""
    is_adapter: bool
    """False if all weights of the model are trained."""
    spoiled: tuple[str, ...] = ()
    """What would spoil the run, one sentence each."""
    deprecated: tuple[str, ...] = ()
    """What TRL says about settings that it will remove."""


def train(
    recipe: Recipe,
    *,
    resume: bool = False,
    overwrite: bool = False,
    force: bool = False,
    on_progress: OnProgress = lambda _: None,
    check: Callable[["PreparedRun"], None] = lambda _: None,
) -> FinishedRun:
    """Train the recipe, save the adapter, score it and write the record.

    `check` gets the prepared run before the first step, and raises what must be known before hours of work.

    Raises LoraComposeError: "run_exists" if output_dir already holds a run, "other_run", "run_spoiled" if
    something would spoil the run and `force` is not set, and the errors of the checks in `checks.py`.
    """
    run = prepare(recipe, resume=resume, overwrite=overwrite, force=force, on_progress=on_progress)
    check(run)
    _report_prepared(run, on_progress)
    if not force:
        refuse_spoiled(list(run.spoiled))
    if overwrite:
        remove_run(run.directory)
    starts = run.recipe.start.init_adapter is not None
    before = run.scorer.before(run.trainer.model, is_trained=starts)
    run = replace(run, record=run.record.model_copy(update=before))
    write_record(run.directory, run.record)
    start = time.perf_counter()
    run.trainer.train(resume_from_checkpoint=run.checkpoint)
    seconds, memory = time.perf_counter() - start, _peak_memory()
    save(run)
    results = run.scorer.after(run.trainer.model) | _training_log(run.trainer.state)
    record = finish_record(run.directory, run.record, seconds=seconds, peak_memory_bytes=memory, **results)
    draw_curves(record, run.directory / CURVES_FILE)
    return FinishedRun(run.directory, record)


def prepare(
    recipe: Recipe,
    *,
    resume: bool = False,
    overwrite: bool = False,
    force: bool = False,
    on_progress: OnProgress = lambda _: None,
) -> PreparedRun:
    """Load, check and build what the recipe names. With `overwrite`, output_dir may hold a run.

    The rows are read and checked before the model is loaded. Raises as `train` does.
    """
    from transformers import set_seed

    set_seed(recipe.training.seed)
    directory = recipe.output
    dataset = load_examples(recipe)
    resumes = resume and not overwrite and (directory / RECORD_FILE).exists()
    recipe, found = resolve(recipe, dataset)
    record = start_record(
        recipe, dataset.facts, base_fingerprint(recipe.model), resume=resume, overwrite=overwrite
    )
    base = load_base(recipe)
    conversation = conversation_of(dataset.train[0])
    base.chat.ids(conversation)
    made = make_trainer(recipe, base, dataset)
    if getattr(recipe.training, "chat_template_path", None) is not None:
        check_template(base, conversation)
    facts = prepared_facts(recipe, made.trainer, base, dataset)
    spoiled = spoilers(recipe, dataset, facts)
    known = {"prepared": facts, "resolved": found, "forced": spoiled if force else []}
    return PreparedRun(
        directory,
        recipe,
        dataset,
        made.trainer,
        made.scorer,
        record.model_copy(update=known),
        last_whole_checkpoint(directory, on_progress) if resumes else None,
        recipe.model.use_peft,
        tuple(spoiled),
        made.deprecated,
    )


def _report_prepared(run: PreparedRun, on_progress: OnProgress) -> None:
    record = run.record
    assert record.prepared is not None
    lines = [
        *run.scorer.remarks(),
        *(remark for source in record.data.sources for remark in source.remarks),
        *record.resolved,
        *remarks(run.recipe, record.prepared),
        *run.deprecated,
        prepared_table(record),
        *(f"Forced: {reason}" for reason in record.forced),
    ]
    for line in lines:
        on_progress(line)


def remove_run(directory: Path) -> None:
    """Delete the files that a run writes in `directory`. Other files stay."""
    names = (ADAPTER_DIR, MODEL_DIR, CURVES_FILE, RECORD_FILE)
    files = [*filter(Path.exists, (directory / name for name in names)), *directory.glob("checkpoint-*")]
    for path in files:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def save(run: PreparedRun) -> None:
    """Save only the adapter's two files. TRL's trainer would also save its pickled arguments."""
    if not run.is_adapter:
        run.trainer.save_model(str(run.directory / MODEL_DIR))
        return
    target, scratch = run.directory / ADAPTER_DIR, run.directory / f".{ADAPTER_DIR}"
    save_adapter(run, scratch)
    target.mkdir(exist_ok=True)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        (scratch / name).replace(target / name)
    shutil.rmtree(scratch)


def save_adapter(run: PreparedRun, directory: Path) -> None:
    """Save the adapter of a run, trained or not, as PEFT does."""
    run.trainer.model.save_pretrained(str(directory), selected_adapters=["default"])


def _training_log(state: Any) -> dict[str, Any]:
    """The fields of FinishedRecord that come from the trainer's state."""
    checkpoint = state.best_model_checkpoint
    return {
        "steps": state.global_step,
        "epochs": state.epoch,
        "best": {"metric": state.best_metric, "checkpoint": checkpoint and Path(checkpoint).name},
        "history": json.loads(json.dumps(state.log_history, default=float)),
    }


def _peak_memory() -> int:
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
