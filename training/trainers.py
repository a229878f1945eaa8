"""TRL's trainers, made from a recipe, that can also score the model's answers at each evaluation."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.training.base_model import Base, adapter_config
from lora_compose.training.dataset import Examples
from lora_compose.training.deprecations import collected
from lora_compose.training.evaluation.held_out_text import HeldOutText, load_text
from lora_compose.training.evaluation.models import LocalModel
from lora_compose.training.evaluation.requirements import check_directions, check_known, parse_requirements
from lora_compose.training.evaluation.scores import PERPLEXITY, Scores, forgetting, score, too_long_line
from lora_compose.training.evaluation.served_chat import ServedChat
from lora_compose.training.evaluation.tasks import Task, load_tasks
from lora_compose.training.recipe import Recipe
from lora_compose.training.recipe_options import ScoreArguments


@dataclass
class Scorer:
    """Scores a model on the tasks of a recipe, as it would be served. Without tasks, results are empty.

    It keeps the scores before training, because a change is measured on the same questions.
    """

    tasks: tuple[Task, ...]
    chat: ServedChat
    max_tokens: int | None
    texts: tuple[HeldOutText, ...] = ()
    base: Scores | None = None
    start: Scores | None = None
    """The scores of the adapter that training starts from."""

    def __call__(self, model: Any) -> dict[str, float]:
        """The model's scores by name."""
        return self._score(model).named() if self.is_scoring else {}

    def _score(self, model: Any) -> Scores:
        answerer = LocalModel(model, self.chat)
        return score(answerer, self.tasks, texts=self.texts, max_tokens=self.max_tokens)

    @property
    def is_scoring(self) -> bool:
        """Whether the recipe has tasks or texts."""
        return bool(self.tasks or self.texts)

    @property
    def lower_is_better(self) -> list[str]:
        """The names of the scores that are losses."""
        tasks = {task.kind for task in self.tasks if task.scored_by.lower_is_better}
        return sorted({*tasks, *(f"{PERPLEXITY}:{text.name}" for text in self.texts)})

    @property
    def names(self) -> set[str]:
        """The names of the scores of the trained model."""
        kinds = {task.kind for task in self.tasks}
        texts = {f"{name}:{text.name}" for text in self.texts for name in (PERPLEXITY, "forgetting")}
        return {*kinds, *texts, *({"forgetting"} if "general" in kinds else ())}

    def remarks(self) -> list[str]:
        """What makes a right answer impossible, one sentence for each task."""
        found = []
        for task in self.tasks:
            lengths = [self.chat.length(question.answer) for question in task.questions]
            too_long = sum(length > (self.max_tokens or length) for length in lengths)
            if too_long:
                limit = f"score_tokens ({self.max_tokens})"
                found.append(too_long_line(task.name, too_long, len(lengths), limit, max(lengths)))
        return found

    def before(self, model: Any, *, is_trained: bool) -> dict[str, Any]:
        """Score the base, and its adapter if `is_trained`. The value has fields of the run's record.

        A new adapter has no effect yet, so it is not scored.
        """
        if not self.is_scoring:
            return {}
        has_adapter = hasattr(model, "disable_adapter")
        with model.disable_adapter() if has_adapter else nullcontext():
            self.base = self._score(model)
        found = {
            "base_scores": self.base.named(),
            "base_intervals": self.base.intervals(),
            "lower_is_better": self.lower_is_better,
        }
        if not is_trained:
            return found
        self.start = self._score(model)
        return found | {"start_scores": self.start.named()}

    def after(self, model: Any) -> dict[str, Any]:
        """Score the trained model. The value has fields of the finished record.

        `changes` compares with the adapter that training started from, or with the base.
        """
        if self.base is None:
            return {"scores": {}}
        found = self._score(model)
        scores, intervals = found.named(), found.intervals()
        for name, (lost, ends) in forgetting(self.base, found).items():
            scores[name], intervals[name] = lost, ends
        changes = found.changes(self.start or self.base)
        return {"scores": scores, "intervals": intervals, "changes": changes}


def make_scorer(arguments: ScoreArguments, chat: ServedChat) -> Scorer:
    """The scorer for a recipe's tasks. Raises the errors of `load_tasks`."""
    limit = arguments.score_limit
    tasks = [
        *load_tasks(arguments.domain_tasks, "domain", limit=limit, judge=arguments.judge),
        *load_tasks(arguments.general_tasks, "general", limit=limit, judge=arguments.general_judge),
    ]
    texts = tuple(map(load_text, arguments.general_text))
    return Scorer(tuple(tasks), chat, arguments.score_tokens, texts)


REFERENCE = "ref"
"""TRL's name for the frozen copy of the adapter that dpo and kto start from."""


REFUSALS = (ValueError, TypeError, OSError, ImportError, NotImplementedError, RuntimeError, TemplateError)
"""What TRL, PEFT and transformers raise for settings or rows that they cannot use."""


@dataclass(frozen=True)
class ScoredTrainer:
    """TRL's trainer of the method, the scorer of its model, and the scores of the model before training."""

    trainer: Any
    scorer: Scorer
    deprecated: tuple[str, ...] = ()
    """What TRL says about settings that it will remove."""


def make_trainer(recipe: Recipe, base: Base, examples: Examples) -> ScoredTrainer:
    """The trainer and its scorer. Raises LoraComposeError("invalid_recipe") and as `load_tasks`."""
    scorer = make_scorer(recipe.score, base.chat)
    _keep_directions(recipe, scorer)
    deprecated = list(recipe.deprecated)
    with collected(deprecated):
        trainer = _trainer(recipe, base, examples, scorer)
    return ScoredTrainer(trainer, scorer, tuple(deprecated))


def _keep_directions(recipe: Recipe, scorer: Scorer) -> None:
    """Choose the best checkpoint by the direction of its score.

    Raises InvalidRequest for a requirement on a score that is not measured, or on a high loss.
    """
    lower = scorer.lower_is_better
    if recipe.publish.require:
        requirements = parse_requirements(recipe.publish.require)
        check_known(requirements, scorer.names)
        check_directions(requirements, lower)
    if str(recipe.training.metric_for_best_model).removeprefix("eval_") in lower:
        recipe.training.greater_is_better = False


def _trainer(recipe: Recipe, base: Base, examples: Examples, scorer: Scorer) -> Any:
    """The trainer. With `score_each_evaluation`, its evaluations also have eval_domain and eval_general."""
    from transformers import EarlyStoppingCallback
    from trl import DPOTrainer, KTOTrainer, SFTTrainer

    class Scored:
        """Adds the scores to the evaluation's metrics, for callbacks, logs and the choice of the best
        checkpoint.
        """

        def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
            output = super().evaluation_loop(*args, **kwargs)  # type: ignore[misc]
            prefix = kwargs.get("metric_key_prefix", "eval")
            if recipe.score.score_each_evaluation:
                output.metrics.update({f"{prefix}_{n}": v for n, v in scorer(self.model).items()})  # type: ignore[attr-defined]
            return output

    trained = {"sft": SFTTrainer, "dpo": DPOTrainer, "kto": KTOTrainer}[recipe.method]
    trainer_class = type("Trainer", (Scored, trained), {})
    try:
        trainer = trainer_class(
            model=base.model,
            args=recipe.training,
            train_dataset=examples.train,
            eval_dataset=examples.held_out,
            processing_class=base.tokenizer,
            peft_config=_new_adapter(recipe),
            callbacks=[] if recipe.score.patience is None else [EarlyStoppingCallback(recipe.score.patience)],
        )
    except REFUSALS as error:
        raise _refused(error) from error
    if REFERENCE in getattr(trainer.model, "peft_config", {}) and recipe.start.reference == "base":
        trainer.model.delete_adapter(REFERENCE)  # without it, TRL switches the adapter off instead
    if (recipe.model.load_in_4bit or recipe.model.load_in_8bit) and recipe.model.dtype == "float32":
        _keep_adapter_precise(trainer.model)
    return trainer


def _refused(error: Exception) -> LoraComposeError:
    """The first sentence of what TRL, PEFT or the chat template say about settings or rows."""
    text = str(error).strip().split("\n")[0] or type(error).__name__
    if isinstance(error, TemplateError):
        return LoraComposeError(
            CommandCode.CHAT_TEMPLATE_FAILED,
            f"The base's chat template refuses a row: {text}. Change the rows, for example by moving the "
            "system message into the first message of the user.",
            "domain",
        )
    return LoraComposeError(CommandCode.INVALID_RECIPE, f"TRL cannot train with these settings: {text}")


def _new_adapter(recipe: Recipe) -> Any:
    """PEFT's config of the adapter to add. None if init_adapter is given or all weights are trained.

    It names the base's revision if the recipe does, so that PEFT loads the adapter on the same weights.
    """
    return None if recipe.start.init_adapter is not None else adapter_config(recipe.model)


def _keep_adapter_precise(model: Any) -> None:
    """Keep the adapter's weights in float32.

    TRL casts LoRA weights on a quantized base to bfloat16, for GPUs. With float32 arithmetic, the updates are
    smaller than the precision of bfloat16, so the weights would not change.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
