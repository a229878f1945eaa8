"""One evaluation: a base, and an adapter or a composition on it, by everything that was asked for."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_compose.adapters.errors import CommandCode, InvalidRequest
from lora_compose.training.evaluation.harness import harness_scores
from lora_compose.training.evaluation.likelihood import likelihoods, loss_interval, mean_loss
from lora_compose.training.evaluation.models import Loaded, LocalModel, ServedModel, composed
from lora_compose.training.evaluation.preferences import length_drift, pairs_of, preference
from lora_compose.training.evaluation.scores import Scores, TaskScore, forgetting, score
from lora_compose.training.evaluation.tasks import Task


@dataclass(frozen=True)
class Asked:
    """What is measured."""

    tasks: Sequence[Task] = ()
    losses: Sequence[Task] = ()
    """Tasks whose answers' likelihood is measured too."""
    preferences: Sequence[str] = ()
    harness: Sequence[str] = ()
    limit: int | None = None
    max_tokens: int = 64
    beta: float = 0.1


@dataclass
class Report:
    """What came out. `scores` has every figure by a name that `--require` takes."""

    model: str
    scores: dict[str, float] = field(default_factory=dict)
    tasks: Sequence[TaskScore] = ()
    base: Sequence[TaskScore] = ()
    members: Sequence[str] = ()
    digests: Mapping[str, str] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """95 %, of those scores that have one."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """How many questions or pairs a score is of, by its name."""


Told = Callable[[str], None]


def evaluate_offline(
    base: str,
    composition: str | None,
    directories: Mapping[str, Path],
    data_dir: Path,
    asked: Asked,
    told: Told = lambda _: None,
) -> Report:
    """In this process, with transformers and PEFT."""
    if asked.preferences and composition is None:
        raise InvalidRequest(
            CommandCode.NO_REFERENCE, "Preferences compare a composition with its base", "preferences"
        )
    with composed(base, composition, directories, data_dir) as loaded:
        off = loaded.model.disable_adapter if composition else nullcontext
        answerer = LocalModel(loaded.model, loaded.tokenizer)
        found = score(answerer, asked.tasks, max_tokens=asked.max_tokens, told=lambda t: told(t.name))
        before = None
        if composition and any(task.kind == "general" for task in asked.tasks):
            with off():
                before = score(
                    answerer, asked.tasks, max_tokens=asked.max_tokens, told=lambda t: told(t.name)
                )
        report = _report(composition or Path(base).name, found, before, asked)
        report.members = tuple(loaded.digests)
        report.digests = {**report.digests, **loaded.digests}
        _add_likelihoods(report, loaded, asked, off)
        if asked.harness:
            results = harness_scores(
                asked.harness, model=loaded.model, tokenizer=loaded.tokenizer, limit=asked.limit
            )
            report.scores |= _flat(results)
    return report


def evaluate_served(
    url: str,
    model: str | None,
    api_key: str | None,
    asked: Asked,
    base_dir: str | None,
    told: Told = lambda _: None,
) -> Report:
    """A running server's. `base_dir` holds the tokenizer that the harness needs.

    Raises InvalidRequest("not_over_http") for what a server does not tell: likelihoods of given answers."""
    if asked.losses or asked.preferences:
        raise InvalidRequest(
            CommandCode.NOT_OVER_HTTP,
            "Held-out loss and preferences need the model in this process: leave out --url",
            "url",
        )
    answerer = ServedModel(url, model, api_key)
    found = score(answerer, asked.tasks, max_tokens=asked.max_tokens, told=lambda t: told(t.name))
    before = None
    if model is not None and any(task.kind == "general" for task in asked.tasks):
        base = ServedModel(url, None, api_key)
        before = score(base, asked.tasks, max_tokens=asked.max_tokens, told=lambda t: told(t.name))
    report = _report(answerer.name, found, before, asked)
    if asked.harness:
        if base_dir is None:
            raise InvalidRequest(
                CommandCode.NO_TOKENIZER, "lm-evaluation-harness needs --model for its tokenizer", "model"
            )
        results = harness_scores(
            asked.harness,
            tokenizer=base_dir,
            server={"url": url, "model": answerer.name, "key": api_key or "none"},
            limit=asked.limit,
        )
        report.scores |= _flat(results)
    return report


def _report(model: str, found: Scores, before: Scores | None, asked: Asked) -> Report:
    scores = found.named()
    lost = None if before is None else forgetting(before, found)
    if lost is not None:
        scores["forgetting"] = lost
    asked_as = Counter(each.task for each in found.tasks)
    for each in found.tasks:
        key = f"task:{each.kind}:{each.task}" if asked_as[each.task] > 1 else f"task:{each.task}"
        scores[key] = each.share
    digests = {task.name: task.digest for task in asked.tasks}
    return Report(model, scores, found.tasks, () if before is None else before.tasks, digests=digests)


def _add_likelihoods(report: Report, loaded: Loaded, asked: Asked, off: Callable[[], Any]) -> None:
    """Loss with perplexity, and preferences, with how sure they are and of how many."""
    intervals, counts = dict(report.intervals), dict(report.counts)
    for task in asked.losses:
        found = likelihoods(loaded.model, loaded.tokenizer, [(q.prompt, q.answer) for q in task.questions])
        name, loss = f"loss:{task.name}", mean_loss(found)
        report.scores |= {name: loss, f"perplexity:{task.name}": math.exp(loss)}
        intervals[name] = loss_interval(found)
        counts[name] = len(found)
    for source in asked.preferences:
        pairs = pairs_of(source)[: asked.limit]
        preferred = preference(loaded.model, loaded.tokenizer, pairs, off(), asked.beta)
        prompts = [pair.prompt for pair in pairs]
        drift = length_drift(loaded.model, loaded.tokenizer, prompts, off(), asked.max_tokens)
        report.scores |= {
            f"preference:{source}": preferred.accuracy,
            f"preference_by_token:{source}": preferred.normalized_accuracy,
            f"margin:{source}": preferred.margin,
            f"length_drift:{source}": drift,
        }
        intervals |= {
            f"preference:{source}": preferred.interval,
            f"margin:{source}": preferred.margin_interval,
        }
        counts |= {f"preference:{source}": preferred.count, f"margin:{source}": preferred.count}
    report.intervals, report.counts = intervals, counts


def _flat(results: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {
        f"{task}:{metric}": value for task, metrics in results.items() for metric, value in metrics.items()
    }
