"""Which model is meant: a known name, a config.json, a model directory, or a hub id."""

import json
from pathlib import Path
from typing import Any

from adapters.errors import LoraComposeError
from training.planning.architectures import shape_of
from training.planning.known_models import KNOWN_MODELS, Config
from training.planning.shapes import ModelShape


def read_shape(model: str) -> ModelShape:
    """The shape of `model`. A name of KNOWN_MODELS needs no file and no network.

    Raises LoraComposeError: model_not_found, bad_config, already_quantized, unknown_architecture."""
    return shape_of(_as_transformers_has_it(_config(model)))


def _config(model: str) -> Config:
    known = KNOWN_MODELS.get(model.lower().rpartition("/")[2])
    path = Path(model)
    if path.is_dir():
        path /= "config.json"
    if path.is_file():
        return _read(path)
    return known if known is not None else _from_hub(model)


def _read(path: Path) -> Config:
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise LoraComposeError("bad_config", f"{path} is not JSON: {error}", "model") from error
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise LoraComposeError("bad_config", f"{path} names no model_type: it is no model's config", "model")
    return config


def _from_hub(model: str) -> Config:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return _read(Path(hf_hub_download(model, "config.json")))
    except (OSError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        known = ", ".join(KNOWN_MODELS)
        message = (
            f"{model!r} is no directory, no config.json, and the hub does not give its config ({error}). "
            f"Known offline: {known}"
        )
        raise LoraComposeError("model_not_found", message, "model") from error


def _as_transformers_has_it(config: Config) -> Any:
    """With transformers' defaults for what the file leaves out."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CONFIG_MAPPING

    if "quantization_config" in config:
        message = (
            "This is the config of a checkpoint quantized already; give that of the model it was made from"
        )
        raise LoraComposeError("already_quantized", message, "model")
    kind = config["model_type"]
    if kind not in CONFIG_MAPPING:
        raise LoraComposeError("unknown_architecture", f"transformers knows no model type {kind!r}", "model")
    fields = {name: value for name, value in config.items() if name != "model_type"}
    try:
        return CONFIG_MAPPING[kind](**fields)
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise LoraComposeError("bad_config", f"The config does not fit {kind}: {error}", "model") from error
