"""What a model in training says, scored: what it knows of the domain, what it lost in general."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

from training.data.reading import read_rows
from training.recipe import Recipe
from training.testbed.answering import ask

Scorer = Callable[[Any], dict[str, float]]
"""A model's scores by name."""


def scorer_of(recipe: Recipe, tokenizer: Any) -> Scorer | None:
    """None where the recipe names no tasks."""
    asked = recipe.score
    tasks = {"domain": asked.domain_tasks, "general": asked.general_tasks}
    rows = {
        name: [
            row
            for source in sources
            for row in read_rows(source).dataset.select(range(min(200, asked.score_limit or 200)))
        ]
        for name, sources in tasks.items()
        if sources
    }

    def scores(model: Any) -> dict[str, float]:
        was = model.training
        found = {}
        for name, own in rows.items():
            answers = ask(model, tokenizer, [row["prompt"][0]["content"] for row in own])
            found[name] = sum(
                a == row["completion"][0]["content"] for a, row in zip(answers, own, strict=True)
            ) / len(own)
        model.train(was)
        return found

    return scores if rows else None


def base_scores(scorer: Scorer, model: Any) -> dict[str, float]:
    """Of the base under a model: with its adapter, if it has one, switched off."""
    with model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext():
        return scorer(model)


def with_forgetting(scores: Mapping[str, float], base: Mapping[str, float]) -> dict[str, float]:
    """`forgetting` is the general score the base has and the model has not."""
    if "general" not in scores:
        return dict(scores)
    return {**scores, "forgetting": base["general"] - scores["general"]}
