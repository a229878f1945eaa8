"""Run tasks of EleutherAI's lm-evaluation-harness through its Python API."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_compose.adapters.errors import CommandCode, LoraComposeError

BATCH = 16
MISSING = "lm-evaluation-harness is not installed. Install it with: pip install 'lora-compose[eval]'"


def harness_scores(
    tasks: Sequence[str],
    *,
    model: Any = None,
    tokenizer: Any = None,
    server: Mapping[str, str] | None = None,
    limit: int | None = None,
    chat: bool = False,
) -> dict[str, dict[str, float]]:
    """The harness's metrics by task. A task is a name that the harness knows, or a YAML file of a task.

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
            bootstrap_iters=0,
            apply_chat_template=chat,
        )
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split())
        raise LoraComposeError(
            CommandCode.HARNESS_FAILED,
            f"lm-evaluation-harness stopped: {type(error).__name__}: {reason:.300}",
            "harness",
        ) from error
    return {name: _numbers(found["results"][name]) for name in names}


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


def _numbers(results: Mapping[str, Any]) -> dict[str, float]:
    """The metrics with short names: `acc` in place of `acc,none`. Standard errors and sizes are left out."""
    return {
        key.partition(",")[0]: float(value)
        for key, value in results.items()
        if isinstance(value, int | float) and "stderr" not in key and key != "sample_len"
    }
