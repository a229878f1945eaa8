"""The base model of a run, quantized or not, with the adapter of `init_adapter` if there is one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.training.evaluation.served_chat import ServedChat
from lora_compose.training.recipe import Recipe


@dataclass(frozen=True)
class Base:
    """The base model, with the adapter of `init_adapter` on it if the recipe names one."""

    model: Any
    tokenizer: Any
    chat: ServedChat
    """How a server with this base writes chats, before the recipe changes anything for training."""


def load_tokenizer(model: Any) -> Any:
    """The tokenizer of the base. `model` is TRL's ModelConfig. Raises LoraComposeError("base_not_loaded")."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model.model_name_or_path, revision=model.model_revision)
    except (OSError, ValueError) as error:
        raise not_loaded(model, error) from error


def base_fingerprint(model: Any) -> str | None:
    """The fingerprint of the base's weights. None if its files are not on this machine.

    `model` is TRL's ModelConfig.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    from lora_compose.adapters.admission.fingerprint import fingerprint

    directory = Path(model.model_name_or_path)
    if not directory.is_dir():
        try:
            directory = Path(
                snapshot_download(
                    model.model_name_or_path, revision=model.model_revision, local_files_only=True
                )
            )
        except (LocalEntryNotFoundError, HFValidationError):
            return None
    try:
        return fingerprint(directory)
    except (OSError, ValueError) as error:
        raise not_loaded(model, error) from error


def load_base(recipe: Recipe) -> Base:
    """The base in the requested precision.

    If the recipe has `init_adapter`, that adapter is on it, trainable.

    Raises LoraComposeError("base_not_loaded") or ("init_adapter_not_loaded").
    """
    from transformers import AutoModelForCausalLM
    from trl import get_quantization_config

    model, training = recipe.model, recipe.training
    tokenizer = load_tokenizer(model)
    quantization = get_quantization_config(model)
    options: dict[str, Any] = dict(training.model_init_kwargs or {})
    training.model_init_kwargs = None  # TRL would warn that the model is loaded already
    if model.attn_implementation is not None:
        options["attn_implementation"] = model.attn_implementation
    if quantization is not None:
        options |= {"quantization_config": quantization, "device_map": "cpu" if training.use_cpu else {"": 0}}
    try:
        base = AutoModelForCausalLM.from_pretrained(
            model.model_name_or_path, revision=model.model_revision, dtype=model.dtype, **options
        )
    except (OSError, ValueError) as error:
        raise not_loaded(model, error) from error
    _keep_layout(base)
    chat = ServedChat.of(tokenizer, base)
    if recipe.start.init_adapter is not None:
        base = _with_adapter(base, Path(recipe.start.init_adapter), model)
    return Base(base, tokenizer, chat)


def _keep_layout(base: Any) -> None:
    """Stop bitsandbytes from repacking the 4-bit weights.

    On a CPU, bitsandbytes 0.50 repacks them at the first forward pass in eval mode and does not undo it.
    Every training step after an evaluation would compute with wrong weights.
    """
    for module in base.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _with_adapter(base: Any, directory: Path, model: Any) -> Any:
    """The adapter in `directory` on the base, trainable, with this base in its config.

    PEFT would ask the hub about another base whenever the adapter is saved.
    """
    from peft import PeftModel

    try:
        adapted = PeftModel.from_pretrained(base, directory, is_trainable=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise LoraComposeError(
            CommandCode.INIT_ADAPTER_NOT_LOADED,
            f"The adapter in {directory} cannot be loaded: {error}",
            "init_adapter",
        ) from error
    config = adapted.peft_config["default"]
    config.base_model_name_or_path, config.revision = model.model_name_or_path, named_revision(model)
    return adapted


def adapter_config(model: Any) -> Any:
    """PEFT's config of a new adapter. None if all weights are trained. `model` is TRL's ModelConfig.

    TRL makes a text of a list with one target, and PEFT reads a text as a regular expression for the whole
    path of a module. A plain name stays a name here.
    """
    from trl import get_peft_config

    config = get_peft_config(model)
    if config is None:
        return None
    config.revision = named_revision(model)
    targets = config.target_modules
    if isinstance(targets, str) and targets != "all-linear" and targets.replace("_", "").isalnum():
        config.target_modules = {targets}
    return config


def named_revision(model: Any) -> str | None:
    """The revision of the base for PEFT's config. None for the newest."""
    return None if model.model_revision in (None, "main") else str(model.model_revision)


def not_loaded(model: Any, error: Exception) -> LoraComposeError:
    return LoraComposeError(
        CommandCode.BASE_NOT_LOADED,
        f"The base model {model.model_name_or_path} cannot be loaded: {error}",
        "model_name_or_path",
    )
