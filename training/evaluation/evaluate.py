"""One evaluation of a base, or of an adapter or a composition on it, in this process or at a server."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_compose.adapters.errors import CommandCode, InvalidRequest
from lora_compose.training.evaluation.harness import HarnessScore, harness_scores
from lora_compose.training.evaluation.held_out_text import HeldOutText
from lora_compose.training.evaluation.likelihood import likelihoods, loss_interval, mean_loss
from lora_compose.training.evaluation.models import (
    NOT_OVER_HTTP,
    Answerer,
    Loaded,
    LocalModel,
    ServedModel,
    composed,
)
from lora_compose.training.evaluation.preferences import length_drift, preference, read_pairs
from lora_compose.training.evaluation.scores import MIN_TOKENS, Scores, TaskScore, forgetting, score
from lora_compose.training.evaluation.tasks import Task


@dataclass(frozen=True)
class EvaluationRequest:
    """The measurements to make."""

    tasks: Sequence[Task] = ()
    losses: Sequence[Task] = ()
    """Tasks whose right answers' loss is measured too."""
    texts: Sequence[HeldOutText] = ()
    """Texts whose perplexity is measured."""
    preferences: Sequence[str] = ()
    harness: Sequence[str] = ()
    harness_chat: bool = False
    """Whether the chat template writes the harness's prompts."""
    limit: int | None = None
    max_tokens: int | None = None
    """The most tokens of an answer. None: MIN_TOKENS, or as many as the longest right answer has."""
    beta: float = 0.1

    @property
    def lower_is_better(self) -> set[str]:
        """The names of the scores that are losses."""
        losses = [task for task in self.tasks if task.scored_by.lower_is_better]
        measured = {f"{kind}:{task.name}" for task in self.losses for kind in ("loss", "perplexity")}
        texts = {f"perplexity:{text.name}" for text in self.texts}
        return measured | texts | {task.kind for task in losses} | {f"task:{task.name}" for task in losses}


@dataclass
class Report:
    """The results. `scores` has every figure by its name, as `--require` takes it."""

    model: str
    scores: dict[str, float] = field(default_factory=dict)
    tasks: Sequence[TaskScore] = ()
    base: Sequence[TaskScore] = ()
    members: Sequence[str] = ()
    digests: Mapping[str, str] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """The 95 % intervals of scores that have one, by the score's name."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """The number of questions or pairs behind a score, by the score's name."""


OnProgress = Callable[[str], None]


def evaluate_offline(
    base: str,
    composition: str | None,
    directories: Mapping[str, Path],
    data_dir: Path,
    request: EvaluationRequest,
    on_progress: OnProgress = lambda _: None,
) -> Report:
    """Evaluate in this process, with transformers and PEFT.

    `on_progress` gets the name of each finished task.
    """
    if request.preferences and composition is None:
        raise InvalidRequest(
            CommandCode.NO_REFERENCE,
            "Preferences compare a composition with its base: name a composition",
            "preferences",
        )
    with composed(base, composition, directories, data_dir) as loaded:
        off = loaded.model.disable_adapter if composition else nullcontext
        answerer = LocalModel(loaded.model, loaded.chat)
        found = _score(answerer, request, on_progress)
        before = None
        if composition and (request.tasks or request.texts):
            with off():
                before = _score(answerer, request, on_progress)
        report = _report(composition or Path(base).name, found, before, request)
        report.members = tuple(loaded.digests)
        report.digests = {**report.digests, **loaded.digests}
        _add_likelihoods(report, loaded, request, off)
        if request.harness:
            results = harness_scores(
                request.harness,
                model=loaded.model,
                tokenizer=loaded.chat.tokenizer,
                limit=request.limit,
                chat=request.harness_chat,
            )
            _add_harness(report, results)
    return report


def evaluate_served(
    url: str,
    model: str | None,
    api_key: str | None,
    request: EvaluationRequest,
    base_dir: str | None,
    on_progress: OnProgress = lambda _: None,
) -> Report:
    """Evaluate `model` at a running server. `base_dir` has the tokenizer that the harness needs.

    Raises InvalidRequest("not_over_http") for loss and preferences: a server does not give the likelihood of
    a given answer.
    """
    is_likelihood = any(task.scored_by.needs_likelihood for task in request.tasks)
    if is_likelihood or request.losses or request.preferences or request.texts:
        raise InvalidRequest(CommandCode.NOT_OVER_HTTP, NOT_OVER_HTTP, "url")
    answerer = ServedModel(url, model, api_key)
    found = _score(answerer, request, on_progress)
    before = None
    if model is not None and request.tasks:
        base = ServedModel(url, None, api_key)
        before = _score(base, request, on_progress)
    report = _report(answerer.name, found, before, request)
    if request.harness:
        if base_dir is None:
            raise InvalidRequest(
                CommandCode.NO_TOKENIZER,
                "lm-evaluation-harness needs a tokenizer: give the base's directory with --model",
                "model",
            )
        results = harness_scores(
            request.harness,
            tokenizer=base_dir,
            server={"url": url, "model": answerer.name, "key": api_key or "none"},
            limit=request.limit,
            chat=request.harness_chat,
        )
        _add_harness(report, results)
    return report


def _score(answerer: Answerer, request: EvaluationRequest, on_progress: OnProgress) -> Scores:
    return score(
        answerer,
        request.tasks,
        texts=request.texts,
        max_tokens=request.max_tokens,
        on_progress=lambda task: on_progress(task.name),
    )


def _report(model: str, found: Scores, before: Scores | None, request: EvaluationRequest) -> Report:
    scores, intervals = found.named(), found.intervals()
    for name, (lost, ends) in ({} if before is None else forgetting(before, found)).items():
        scores[name], intervals[name] = lost, ends
    name_counts = Counter(task.task for task in found.tasks)
    for task in found.tasks:
        key = f"{task.kind}:{task.task}" if name_counts[task.task] > 1 else task.task
        scores[f"task:{key}"], intervals[f"task:{key}"] = task.score, task.interval
        scores |= {f"{name}:{key}": part.score for name, part in task.parts.items()}
        intervals |= {f"{name}:{key}": part.interval for name, part in task.parts.items()}
    return Report(
        model,
        scores,
        found.tasks,
        () if before is None else before.tasks,
        digests={task.name: task.digest for task in request.tasks},
        intervals=intervals,
    )


def _add_likelihoods(
    report: Report, loaded: Loaded, request: EvaluationRequest, off: Callable[[], Any]
) -> None:
    """Add loss, perplexity and preference scores, with their intervals and counts."""
    intervals, counts = dict(report.intervals), dict(report.counts)
    for task in request.losses:
        found = likelihoods(loaded.model, loaded.chat, [(q.prompt, q.answer) for q in task.questions])
        name, loss = f"loss:{task.name}", mean_loss(found)
        report.scores |= {name: loss, f"perplexity:{task.name}": math.exp(loss)}
        low, high = loss_interval(found)
        intervals |= {name: (low, high), f"perplexity:{task.name}": (math.exp(low), math.exp(high))}
        counts[name] = len(found)
    for source in request.preferences:
        pairs = read_pairs(source)[: request.limit]
        preferred = preference(loaded.model, loaded.chat, pairs, off(), request.beta)
        prompts = [pair.prompt for pair in pairs]
        drift = length_drift(loaded.model, loaded.chat, prompts, off(), request.max_tokens or MIN_TOKENS)
        report.scores |= {
            f"preference:{source}": preferred.accuracy,
            f"preference_by_token:{source}": preferred.normalized_accuracy,
            f"margin:{source}": preferred.margin,
            f"length_drift:{source}": drift.ratio,
        }
        intervals |= {
            f"preference:{source}": preferred.interval,
            f"preference_by_token:{source}": preferred.normalized_interval,
            f"length_drift:{source}": drift.interval,
            f"margin:{source}": preferred.margin_interval,
        }
        counts |= {f"preference:{source}": preferred.count, f"margin:{source}": preferred.count}
    report.intervals, report.counts = intervals, counts


def _add_harness(report: Report, results: Mapping[str, HarnessScore]) -> None:
    report.scores |= {name: score.value for name, score in results.items()}
    known = {name: score.interval for name, score in results.items() if score.interval is not None}
    report.intervals = {**report.intervals, **known}
