"""TRL's trainers, made from a recipe, and able to score what the model says at each evaluation.

What a model in training says, scored: what it knows of the domain, what it lost in general.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from lora_compose.training.base_model import Base
from lora_compose.training.dataset import Examples
from lora_compose.training.evaluation.models import LocalModel
from lora_compose.training.evaluation.scores import score
from lora_compose.training.evaluation.tasks import Task, load_tasks
from lora_compose.training.recipe import Recipe, ScoreArguments


@dataclass(frozen=True)
class Scorer:
    """Scores a model by the tasks of a recipe. Without tasks, every result is empty."""

    tasks: tuple[Task, ...]
    tokenizer: Any
    max_tokens: int

    def __call__(self, model: Any) -> dict[str, float]:
        """The model's scores by name."""
        if not self.tasks:
            return {}
        return score(LocalModel(model, self.tokenizer), self.tasks, max_tokens=self.max_tokens).named()

    def before(self, model: Any) -> dict[str, dict[str, float]]:
        """`base_scores` of the base, and `start_scores` if an adapter is on it already."""
        if not self.tasks:
            return {}
        has_adapter = hasattr(model, "disable_adapter")
        with model.disable_adapter() if has_adapter else nullcontext():
            scores = {"base_scores": self(model)}
        return scores | {"start_scores": self(model)} if has_adapter else scores

    def after(self, model: Any, base: Mapping[str, float]) -> dict[str, float]:
        """The model's scores, with `forgetting`: the general score the base has and the model has not."""
        scores = self(model)
        if "general" not in scores:
            return scores
        return scores | {"forgetting": round(base["general"] - scores["general"], 6)}  # 0.995 - 0.975 is 0.02


def scorer_of(asked: ScoreArguments, tokenizer: Any) -> Scorer:
    """The scorer of a recipe's tasks. Raises what `load_tasks` raises."""
    tasks = [
        *load_tasks(asked.domain_tasks, "domain", limit=asked.score_limit),
        *load_tasks(asked.general_tasks, "general", limit=asked.score_limit),
    ]
    return Scorer(tuple(tasks), tokenizer, asked.score_tokens)


REFERENCE = "ref"
"""TRL's name for its frozen copy of the adapter that DPO starts from."""


@dataclass(frozen=True)
class ScoredTrainer:
    """An SFTTrainer or DPOTrainer, what scores its model, and the scores of the model before training."""

    trainer: Any
    scorer: Scorer
    scores: dict[str, dict[str, float]]


def make_trainer(recipe: Recipe, base: Base, examples: Examples) -> ScoredTrainer:
    """Scores the model, then makes the trainer. Raises what reading the tasks raises."""
    scorer = scorer_of(recipe.score, base.tokenizer)
    scores = scorer.before(base.model)
    return ScoredTrainer(_trainer(recipe, base, examples, scorer), scorer, scores)


def _trainer(recipe: Recipe, base: Base, examples: Examples, scorer: Scorer) -> Any:
    """With `score_each_evaluation`, evaluations have eval_domain and so on."""
    from transformers import EarlyStoppingCallback
    from trl import DPOTrainer, SFTTrainer

    class Scored:
        """Adds scores where callbacks, logs and the choice of the best checkpoint see them."""

        def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
            output = super().evaluation_loop(*args, **kwargs)  # type: ignore[misc]
            prefix = kwargs.get("metric_key_prefix", "eval")
            if recipe.score.score_each_evaluation:
                output.metrics.update({f"{prefix}_{n}": v for n, v in scorer(self.model).items()})  # type: ignore[attr-defined]
            return output

    trainer_class = type("Trainer", (Scored, SFTTrainer if recipe.method == "sft" else DPOTrainer), {})
    trainer = trainer_class(
        model=base.model,
        args=recipe.training,
        train_dataset=examples.train,
        eval_dataset=examples.held_out,
        processing_class=base.tokenizer,
        peft_config=_fresh_adapter(recipe),
        callbacks=[] if recipe.score.patience is None else [EarlyStoppingCallback(recipe.score.patience)],
    )
    if REFERENCE in getattr(trainer.model, "peft_config", {}) and recipe.start.reference == "base":
        trainer.model.delete_adapter(REFERENCE)  # without one, TRL switches the adapter off instead
    if (recipe.model.load_in_4bit or recipe.model.load_in_8bit) and recipe.model.dtype == "float32":
        _keep_adapter_precise(trainer.model)
    return trainer


def _fresh_adapter(recipe: Recipe) -> Any:
    """PEFT's config of the adapter to add; None where one is there already, or all weights are trained."""
    from trl import get_peft_config

    return None if recipe.start.init_adapter is not None else get_peft_config(recipe.model)


def _keep_adapter_precise(model: Any) -> None:
    """TRL casts LoRA weights on a quantized base to bfloat16, for GPUs. Where we compute in float32, they
    learn in float32: their updates are smaller than bfloat16 can tell.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
