"""A tiny base on disk and adapter directories for it: plain tensors and JSON that a test can change."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig

WIDTH, INNER, LAYERS = 32, 48, 2

CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "r": 4,
    "lora_alpha": 8,
    "target_modules": ["q_proj", "down_proj"],
    "base_model_name_or_path": "tiny",
}


def write_base(directory: Path, **changes: Any) -> Path:
    """config.json of a 2-layer, 32-wide Llama and a random weights file. They are enough for its shapes."""
    fields: dict[str, Any] = {"vocab_size": 64, "hidden_size": WIDTH, "intermediate_size": INNER}
    fields |= {"num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 2}
    LlamaConfig(architectures=["LlamaForCausalLM"], **fields | changes).save_pretrained(directory)
    save_file({"model.norm.weight": torch.randn(WIDTH)}, directory / "model.safetensors")
    return directory


def key(layer: int, module: str, factor: str) -> str:
    return f"base_model.model.model.layers.{layer}.{module}.lora_{factor}.weight"


def factors(layers: range = range(LAYERS), rank: int = 4, width: int = WIDTH) -> dict[str, torch.Tensor]:
    """Random lora_A and lora_B of q_proj and down_proj."""
    draw = torch.Generator().manual_seed(0)
    tensors = {}
    for layer in layers:
        for module, d_in in (("self_attn.q_proj", width), ("mlp.down_proj", INNER)):
            tensors[key(layer, module, "A")] = torch.randn(rank, d_in, generator=draw)
            tensors[key(layer, module, "B")] = torch.randn(width, rank, generator=draw)
    return tensors


def write_adapter(directory: Path, tensors: dict[str, torch.Tensor] | None = None, **config: Any) -> Path:
    """An adapter with `tensors` (by default `factors()`) and the config CONFIG, updated with `config`."""
    directory.mkdir(exist_ok=True)
    save_file(factors() if tensors is None else tensors, directory / "adapter_model.safetensors")
    (directory / "adapter_config.json").write_text(json.dumps(CONFIG | config))
    return directory
