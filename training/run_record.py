"""`run.json`: everything a run was made from and what came of it, so that it can be judged and repeated."""

import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from adapters.errors import LoraComposeError
from training.recipe import Recipe

RECORD_FILE: Final = "run.json"
PACKAGES: Final = (
    "lora-compose",
    "torch",
    "transformers",
    "peft",
    "trl",
    "bitsandbytes",
    "datasets",
    "accelerate",
)


def begun(recipe: Recipe, data: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a run that has not ended."""
    import torch

    return {
        "status": "running",
        "method": recipe.method,
        "base": recipe.model.model_name_or_path,
        "settings": recipe.settings(),
        "data": dict(data),
        "versions": {package: _version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else platform.processor() or "cpu",
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def write_record(directory: Path, record: Mapping[str, Any]) -> None:
    """Replaces the one that is there, whole or not at all."""
    directory.mkdir(parents=True, exist_ok=True)
    scratch = directory / f".{RECORD_FILE}"
    scratch.write_text(json.dumps(record, indent=1, default=str) + "\n")
    scratch.replace(directory / RECORD_FILE)


def read_record(directory: Path) -> dict[str, Any] | None:
    """None where there is none. Raises LoraComposeError("bad_run_record")."""
    file = directory / RECORD_FILE
    if not file.exists():
        return None
    try:
        record = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise LoraComposeError("bad_run_record", f"{file}: {error}", "output_dir") from error
    if not isinstance(record, dict):
        raise LoraComposeError("bad_run_record", f"{file} holds no object", "output_dir")
    return record


def check_same_run(
    directory: Path, record: Mapping[str, Any], recipe: Recipe, data: Mapping[str, Any]
) -> None:
    """A run is resumed with the settings and the data it began with. Raises LoraComposeError("other_run")."""
    now = json.loads(json.dumps({"settings": recipe.settings(), "data": dict(data)}, default=str))
    before = {"settings": record["settings"], "data": record["data"]}
    changed = sorted(_differences("", before, now))
    if changed:
        raise LoraComposeError(
            "other_run",
            f"{directory} holds a run with another {', '.join(changed[:5])}: resume it with what it began "
            "with, give another output_dir, or start it again with --overwrite.",
            "output_dir",
        )


def _differences(at: str, before: Any, now: Any) -> set[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = before.keys() | now.keys()
        return {name for key in keys for name in _differences(key, before.get(key), now.get(key))}
    return set() if before == now else {at}
