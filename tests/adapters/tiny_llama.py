"""A real LlamaForCausalLM (2 layers, 32 wide, random) and adapters that PEFT made for it."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

TOKENS = torch.arange(12).reshape(2, 6)


def tiny_llama() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return LlamaForCausalLM(config).eval()


def save_adapter(directory: Path, seed: int, **config: Any) -> Path:
    """A PEFT adapter with random factors for a new tiny Llama, saved by PEFT."""
    config = {"target_modules": ["q_proj", "v_proj", "down_proj"], "r": 4, "lora_alpha": 8} | config
    model = get_peft_model(tiny_llama(), LoraConfig(task_type="CAUSAL_LM", **config))
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(str(directory))
    return directory


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    """(2, 6, 64)"""
    found: torch.Tensor = model.eval()(TOKENS).logits
    return found


def peft_logits(directory: Path) -> torch.Tensor:
    return logits(PeftModel.from_pretrained(tiny_llama(), str(directory)))


def peft_deltas(model: Any, adapter: str) -> dict[str, torch.Tensor]:
    """The deltas that PEFT would merge for `adapter`, by the module names of the base."""
    return {
        name.removeprefix("base_model.model."): layer.get_delta_weight(adapter).detach()
        for name, layer in model.named_modules()
        if hasattr(layer, "get_delta_weight") and adapter in layer.lora_A
    }


@torch.no_grad()
def dense_logits(deltas: dict[str, torch.Tensor]) -> torch.Tensor:
    """The logits of the base with the deltas added to its weights, without any LoRA code."""
    model = tiny_llama()
    for name, delta in deltas.items():
        model.get_submodule(name).weight += delta
    return logits(model)
