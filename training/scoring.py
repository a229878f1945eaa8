"""What a model in training says, scored: what it knows of the domain, what it lost in general."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

from training.arguments import ScoreArguments
from training.evaluation.answerers import LocalModel
from training.evaluation.scores import score
from training.evaluation.tasks import load_tasks

Scorer = Callable[[Any], dict[str, float]]
"""A model's scores by name."""


def scorer_of(asked: ScoreArguments, tokenizer: Any) -> Scorer | None:
    """None where the recipe names no tasks."""
    tasks = [
        *load_tasks(asked.domain_tasks, "domain", limit=asked.score_limit),
        *load_tasks(asked.general_tasks, "general", limit=asked.score_limit),
    ]
    if not tasks:
        return None
    return lambda model: score(LocalModel(model, tokenizer), tasks, max_tokens=asked.score_tokens).named()


def base_scores(scorer: Scorer, model: Any) -> dict[str, float]:
    """Of the base under a model: with its adapter, if it has one, switched off."""
    with model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext():
        return scorer(model)


def with_forgetting(scores: Mapping[str, float], base: Mapping[str, float]) -> dict[str, float]:
    """`forgetting` is the general score the base has and the model has not."""
    if "general" not in scores:
        return dict(scores)
    return {**scores, "forgetting": round(base["general"] - scores["general"], 6)}  # 0.995 - 0.975 is 0.02
