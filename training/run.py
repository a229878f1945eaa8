"""One training run, start to end: data, checks, training, scores, record, plot."""

import json
import resource
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.errors import LoraComposeError
from adapters.file_limits import CONFIG_FILE, WEIGHTS_FILE
from training.base_model import load_model, load_tokenizer
from training.curves import draw_curves
from training.examples import Examples, examples_of
from training.preflight import preference_facts, preflight
from training.recipe import Recipe
from training.run_record import begun, check_same_run, read_record, write_record
from training.scoring import Scorer, base_scores, scorer_of, with_forgetting
from training.trainers import make_trainer

ADAPTER_DIR = "adapter"
MODEL_DIR = "model"
"""Of a run that trained all weights."""
CURVES_FILE = "curves.png"

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """A finished run."""

    directory: Path
    record: dict[str, Any]

    @property
    def adapter(self) -> Path:
        """The adapter's two files."""
        return self.directory / ADAPTER_DIR

    @property
    def scores(self) -> dict[str, float]:
        """domain, general, forgetting: what the recipe's tasks gave."""
        scores: dict[str, float] = self.record["scores"]
        return scores


def train(
    recipe: Recipe, *, resume: bool = False, overwrite: bool = False, tell: Tell = lambda _: None
) -> Run:
    """Raises LoraComposeError: "run_exists" where output_dir holds one, "other_run" and the checks' own."""
    from transformers import set_seed

    set_seed(recipe.training.seed)
    tokenizer = load_tokenizer(recipe)
    examples = examples_of(recipe, tokenizer)
    checkpoint = _prepare_directory(recipe, examples, resume=resume, overwrite=overwrite)
    model = load_model(recipe)
    scorer = scorer_of(recipe, tokenizer)
    record = begun(recipe, examples.facts)
    record |= _scores_before(recipe, model, scorer)
    trainer = make_trainer(recipe, model, tokenizer, examples, scorer)
    record["prepared"] = _prepared(recipe, trainer, tokenizer, len(examples.train))
    tell(f"What is learnt is in ⟦brackets⟧: {record['prepared']['example']}")
    if record["prepared"]["left_out"]:
        tell(f"{record['prepared']['left_out']} rows are left out: truncated, they hold nothing to learn")
    write_record(recipe.output, record)
    began = time.perf_counter()
    trainer.train(resume_from_checkpoint=checkpoint)
    record |= {"seconds": time.perf_counter() - began, "peak_memory_bytes": _peak_memory()}
    _save(trainer, recipe)
    record |= _outcome(trainer, scorer, record)
    write_record(recipe.output, record)
    draw_curves(record, recipe.output / CURVES_FILE)
    return Run(recipe.output, record)


def _prepared(recipe: Recipe, trainer: Any, tokenizer: Any, given: int) -> dict[str, Any]:
    if recipe.method == "dpo":
        return preference_facts(trainer, tokenizer)
    return preflight(trainer, tokenizer, given)


def _prepare_directory(recipe: Recipe, examples: Examples, *, resume: bool, overwrite: bool) -> str | None:
    """The checkpoint to go on from."""
    from transformers.trainer_utils import get_last_checkpoint

    directory = recipe.output
    record = read_record(directory)
    if overwrite:
        for path in _of_a_run(directory):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return None
    if record is None:
        return None
    if not resume:
        raise LoraComposeError(
            "run_exists",
            f"{directory} holds a run ({record['status']}): go on with --resume, "
            "start again with --overwrite, "
            "or give another --output_dir.",
            "output_dir",
        )
    check_same_run(directory, record, recipe, examples.facts)
    last: str | None = get_last_checkpoint(str(directory))
    return last


def _of_a_run(directory: Path) -> list[Path]:
    """Only what a run wrote is ever deleted."""
    names = (ADAPTER_DIR, MODEL_DIR, CURVES_FILE, "run.json")
    return [*filter(Path.exists, (directory / name for name in names)), *directory.glob("checkpoint-*")]


def _scores_before(recipe: Recipe, model: Any, scorer: Scorer | None) -> dict[str, Any]:
    """What the base scores, and the adapter that training starts from."""
    if scorer is None:
        return {}
    scores: dict[str, Any] = {"base_scores": base_scores(scorer, model)}
    if recipe.start.init_adapter is not None:
        scores["start_scores"] = scorer(model)
    return scores


def _save(trainer: Any, recipe: Recipe) -> None:
    """The adapter's two files and no more: TRL's trainer also writes its pickled arguments."""
    if not recipe.model.use_peft:
        trainer.save_model(str(recipe.output / MODEL_DIR))
        return
    target, scratch = recipe.output / ADAPTER_DIR, recipe.output / f".{ADAPTER_DIR}"
    trainer.model.save_pretrained(str(scratch), selected_adapters=["default"])
    target.mkdir(exist_ok=True)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        (scratch / name).replace(target / name)
    shutil.rmtree(scratch)


def _outcome(trainer: Any, scorer: Scorer | None, record: dict[str, Any]) -> dict[str, Any]:
    state = trainer.state
    outcome: dict[str, Any] = {
        "status": "finished",
        "steps": state.global_step,
        "epochs": state.epoch,
        "best": {
            "metric": state.best_metric,
            "checkpoint": state.best_model_checkpoint and Path(state.best_model_checkpoint).name,
        },
        "history": json.loads(json.dumps(state.log_history, default=float)),
        "scores": {},
    }
    if scorer is not None:
        outcome["scores"] = with_forgetting(scorer(trainer.model), record["base_scores"])
    return outcome


def _peak_memory() -> int:
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
