"""What a model in training says, scored: what it knows of the domain, what it lost in general."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from training.arguments import ScoreArguments
from training.evaluation.answerers import LocalModel
from training.evaluation.scores import score
from training.evaluation.tasks import Task, load_tasks


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
