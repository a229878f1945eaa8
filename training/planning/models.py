"""Find the shape of a model by a known name, a model directory, a config.json or a hub id.

KNOWN_MODELS has the configs of a few well-known models, as their repositories publish them, with only the
fields that decide shapes. Planning for them works offline. A hub id needs a network.
"""

import json
from pathlib import Path
from typing import Any, Final

from lora_compose.adapters.errors import Code, CommandCode, LoraComposeError
from lora_compose.training.planning.architectures import shape_of
from lora_compose.training.planning.memory import GIB
from lora_compose.training.planning.shapes import ModelShape

Config = dict[str, Any]


def _llama(hidden: int, inner: int, layers: int, heads: int, **others: Any) -> Config:
    """A config of Llama 3 or 3.1. Both have the same shapes."""
    return _row("llama", 128256, (hidden, inner, layers, heads, 8), tie_word_embeddings=False) | others


def _row(model_type: str, vocab: int, sizes: tuple[int, int, int, int, int], **others: Any) -> Config:
    hidden, inner, layers, heads, kv_heads = sizes
    return {
        "model_type": model_type,
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        **others,
    }


KNOWN_MODELS: Final[dict[str, Config]] = {
    "llama-3.2-1b": _llama(2048, 8192, 16, 32, tie_word_embeddings=True, head_dim=64),
    "llama-3-8b": _llama(4096, 14336, 32, 32),
    "llama-3-70b": _llama(8192, 28672, 80, 64),
    "qwen2.5-0.5b": _row("qwen2", 151936, (896, 4864, 24, 14, 2), tie_word_embeddings=True),
    "qwen2.5-7b": _row("qwen2", 152064, (3584, 18944, 28, 28, 4), tie_word_embeddings=False),
    "qwen2.5-72b": _row("qwen2", 152064, (8192, 29568, 80, 64, 8), tie_word_embeddings=False),
    "smollm2": _row("llama", 49152, (576, 1536, 30, 9, 3), tie_word_embeddings=True),
    "mistral-7b": _row("mistral", 32000, (4096, 14336, 32, 32, 8), tie_word_embeddings=False),
    "gemma-2-9b": _row("gemma2", 256000, (3584, 14336, 42, 16, 8), tie_word_embeddings=True, head_dim=256),
    "gemma-3-1b": _row("gemma3_text", 262144, (1152, 6912, 26, 4, 1), tie_word_embeddings=True, head_dim=256),
    "phi-3-mini": _row("phi3", 32064, (3072, 8192, 32, 32, 32), tie_word_embeddings=False),
    "mixtral-8x7b": _row(
        "mixtral",
        32000,
        (4096, 14336, 32, 32, 8),
        tie_word_embeddings=False,
        num_local_experts=8,
        num_experts_per_tok=2,
    ),
    "qwen3-30b-a3b": _row(
        "qwen3_moe",
        151936,
        (2048, 6144, 48, 32, 4),
        tie_word_embeddings=False,
        head_dim=128,
        num_experts=128,
        num_experts_per_tok=8,
        moe_intermediate_size=768,
    ),
    "deepseek-v3": _row(
        "deepseek_v3",
        129280,
        (7168, 18432, 61, 128, 128),
        tie_word_embeddings=False,
        n_routed_experts=256,
        num_experts_per_tok=8,
        moe_intermediate_size=2048,
        n_shared_experts=1,
        first_k_dense_replace=3,
        q_lora_rank=1536,
        kv_lora_rank=512,
        qk_nope_head_dim=128,
        qk_rope_head_dim=64,
        v_head_dim=128,
    ),
}


def read_shape(model: str) -> ModelShape:
    """The shape of `model`. A name of KNOWN_MODELS needs no file and no network.

    Raises LoraComposeError: model_not_found, bad_config, already_quantized, unknown_architecture.
    """
    config = _transformers_config(_config(model))
    try:
        return _checked(shape_of(config), model)
    except LoraComposeError as error:
        if error.code != CommandCode.UNKNOWN_ARCHITECTURE:
            raise
        message = f"{error.message}. {_known(config)}"
        raise LoraComposeError(CommandCode.UNKNOWN_ARCHITECTURE, message, "model") from None
    except (AttributeError, TypeError, ValueError, ArithmeticError) as error:
        raise LoraComposeError(
            CommandCode.BAD_CONFIG, f"The config of {model} does not describe a model: {error}", "model"
        ) from error


def _checked(shape: ModelShape, model: str) -> ModelShape:
    sizes = {
        "hidden_size": shape.hidden,
        "vocab_size": shape.vocab,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "intermediate_size": min(block.mlp_width for block in shape.blocks) if shape.blocks else 0,
    }
    wrong = [f"{name} {size}" for name, size in sizes.items() if size < 1]
    if wrong:
        message = f"The config of {model} has {' and '.join(wrong)}, but each must be at least 1"
        raise LoraComposeError(CommandCode.BAD_CONFIG, message, "model")
    return shape


def _known(config: Any) -> str:
    """What can be said about a model whose blocks are not known: the memory of its weights."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except Exception as error:  # noqa: BLE001 - a model's own code may fail in any way
        return f"Its parameters cannot be counted either ({type(error).__name__})"
    count = sum(parameter.numel() for parameter in model.parameters())
    return (
        f"It has {count:,} parameters: {count * 2 / GIB:.1f} GiB of weights in bfloat16, and an adapter, "
        "its optimizer and activations in addition"
    )


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
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LoraComposeError(CommandCode.BAD_CONFIG, f"{path} cannot be read: {error}", "model") from error
    except (ValueError, RecursionError) as error:
        raise LoraComposeError(CommandCode.BAD_CONFIG, f"{path} is not JSON: {error}", "model") from error
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise LoraComposeError(
            CommandCode.BAD_CONFIG, f"{path} is not the config of a model: model_type is missing", "model"
        )
    return config


def _from_hub(model: str) -> Config:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return _read(Path(hf_hub_download(model, "config.json")))
    except (OSError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        known = ", ".join(KNOWN_MODELS)
        message = (
            f"{model!r} is neither a directory nor a config.json, and its config cannot be read from the "
            f"hub ({error}). Without a network, these names work: {known}"
        )
        raise LoraComposeError(Code.MODEL_NOT_FOUND, message, "model") from error


def _transformers_config(config: Config) -> Any:
    """The config as a transformers object, with the defaults of transformers for missing fields."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CONFIG_MAPPING

    if "quantization_config" in config:
        message = (
            "This is the config of a checkpoint that is already quantized. Give the config of the original "
            "model"
        )
        raise LoraComposeError(CommandCode.ALREADY_QUANTIZED, message, "model")
    kind = config["model_type"]
    if kind not in CONFIG_MAPPING:
        raise LoraComposeError(
            CommandCode.UNKNOWN_ARCHITECTURE, f"transformers does not know the model type {kind!r}", "model"
        )
    fields = {name: value for name, value in config.items() if name != "model_type"}
    try:
        return CONFIG_MAPPING[kind](**fields)
    except (TypeError, ValueError, ArithmeticError, AttributeError, StrictDataclassError) as error:
        raise LoraComposeError(
            CommandCode.BAD_CONFIG, f"The config is not valid for the model type {kind}: {error}", "model"
        ) from error
