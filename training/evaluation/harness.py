"""Run tasks of EleutherAI's lm-evaluation-harness through its Python API."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.training.evaluation.intervals import Interval, Z, wilson

BATCH = 16
RESAMPLES = 100
"""Resamples for the standard errors of metrics that are not means. The harness never uses more."""
MISSING = "lm-evaluation-harness is not installed. Install it with: pip install 'lora-compose[eval]'"


@dataclass(frozen=True)
class HarnessScore:
    """A metric, and its 95 % interval if the harness knows its standard error."""

    value: float
    interval: Interval | None


def harness_scores(
    tasks: Sequence[str],
    *,
    model: Any = None,
    tokenizer: Any = None,
    server: Mapping[str, str] | None = None,
    limit: int | None = None,
    chat: bool = False,
) -> dict[str, HarnessScore]:
    """The metrics by `task:metric`. A task is a name that the harness knows, or a YAML file of a task.

    Give either a `model` in this process or a `server`, which is `url`, `model` and `key` of an
    OpenAI-compatible endpoint, whose /v1/completions is used for log-likelihoods and for generated answers.
    With `chat`, the tokenizer's chat template writes the prompts. Raises LoraComposeError("harness_missing"),
    ("unknown_task"), or ("harness_failed") with the harness's reason.
    """
    try:
        import lm_eval
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise LoraComposeError(CommandCode.HARNESS_MISSING, MISSING) from error
    files = [Path(task) for task in tasks if task.endswith((".yaml", ".yml"))]
    manager = TaskManager(include_path=sorted({str(file.parent.resolve()) for file in files}) or None)
    names = [Path(task).stem if task.endswith((".yaml", ".yml")) else task for task in tasks]
    unknown = [name for name in names if name not in manager.all_tasks]
    if unknown:
        raise LoraComposeError(
            CommandCode.UNKNOWN_TASK,
            f"lm-evaluation-harness does not have the task {', '.join(unknown)}",
            "harness",
        )
    try:
        found = lm_eval.simple_evaluate(
            model=_local(model, tokenizer) if server is None else "local-completions",
            model_args=None if server is None else _endpoint(server, tokenizer),
            tasks=names,
            task_manager=manager,
            limit=limit,
            batch_size=BATCH if server is None else 1,
            log_samples=False,
            bootstrap_iters=RESAMPLES,
            apply_chat_template=chat,
        )
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split())
        raise LoraComposeError(
            CommandCode.HARNESS_FAILED,
            f"lm-evaluation-harness stopped: {type(error).__name__}: {reason:.300}",
            "harness",
        ) from error
    return {
        f"{name}:{metric}": score
        for name in names
        for metric, score in _metrics(found["results"][name], _count(found, name)).items()
    }


def _local(model: Any, tokenizer: Any) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=BATCH, device=str(model.device))


def _endpoint(server: Mapping[str, str], tokenizer: Any) -> dict[str, Any]:
    return {
        "model": server["model"],
        "base_url": f"{server['url'].rstrip('/')}/v1/completions",
        "tokenizer": tokenizer,
        "tokenizer_backend": "huggingface",
        "num_concurrent": 4,
        "header": {"Authorization": f"Bearer {server['key']}"},
    }


def _count(found: Mapping[str, Any], name: str) -> int:
    """The number of questions of a task. 0 for a group of tasks."""
    return int(found.get("n-samples", {}).get(name, {}).get("effective", 0))


def _metrics(results: Mapping[str, Any], count: int) -> dict[str, HarnessScore]:
    """The metrics with short names: `acc` in place of `acc,none`. The harness's `sample_len` is left out."""
    found = {}
    for key, value in results.items():
        name, _, filtered = key.partition(",")
        if isinstance(value, int | float) and not name.endswith("_stderr") and name != "sample_len":
            error = results.get(f"{name}_stderr,{filtered}")
            found[name] = HarnessScore(float(value), _interval(float(value), error, count))
    return found


def _interval(value: float, error: Any, count: int) -> Interval | None:
    """Wilson's 95 % interval of a share, otherwise the normal one.

    The standard error shows whether `value` is a share of `count` answers. It is a text if the harness does
    not know it.
    """
    if not isinstance(error, int | float):
        return None
    if count > 1 and 0 <= value <= 1 and math.isclose(error, math.sqrt(value * (1 - value) / (count - 1))):
        return wilson(value * count, count)
    return value - Z * error, value + Z * error
