"""Models and adapters with random weights, written to disk as transformers and PEFT write them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig

from lora_compose.benchmarks.gpu.run import Device

GROUPS = {
    "self_attn": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
}
METADATA = {"format": "pt"}


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int

    def linears(self) -> dict[str, tuple[int, int]]:
        """(d_out, d_in) of each linear of a layer."""
        hidden, intermediate = self.hidden, self.intermediate
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (q, hidden),
            "k_proj": (kv, hidden),
            "v_proj": (kv, hidden),
            "o_proj": (hidden, q),
            "gate_proj": (intermediate, hidden),
            "up_proj": (intermediate, hidden),
            "down_proj": (hidden, intermediate),
        }

    def modules(self, layer: int) -> Iterator[tuple[str, int, int]]:
        """(path, d_out, d_in) of each linear of one layer."""
        linears = self.linears()
        for group, names in GROUPS.items():
            yield from ((f"model.layers.{layer}.{group}.{name}", *linears[name]) for name in names)


TINY = Shape(hidden=128, intermediate=256, layers=2, heads=2, kv_heads=1, head_dim=64, vocabulary=256)
SMALL = Shape(hidden=512, intermediate=1024, layers=4, heads=8, kv_heads=4, head_dim=64, vocabulary=1024)
LLAMA_8B = Shape(4096, 14336, layers=32, heads=32, kv_heads=8, head_dim=128, vocabulary=128256)


def write_config(directory: Path, shape: Shape) -> None:
    """`config.json` alone: enough for vLLM's dummy weights."""
    directory.mkdir(parents=True, exist_ok=True)
    config = LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
        dtype="bfloat16",
    )
    config.save_pretrained(directory)


def write_checkpoint(directory: Path, shape: Shape, device: Device) -> int:
    """A model with random bf16 weights, one file for each layer. Returns the bytes of all tensors."""
    write_config(directory, shape)
    parts = [*_checkpoint_parts(shape, device)]
    weight_map: dict[str, str] = {}
    for number, tensors in enumerate(parts):
        name = f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        save_file(tensors, directory / name, metadata=METADATA)
        weight_map |= dict.fromkeys(tensors, name)
    total = sum(tensor.nbytes for tensors in parts for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return total


def _checkpoint_parts(shape: Shape, device: Device) -> Iterator[dict[str, torch.Tensor]]:
    generator = torch.Generator(device).manual_seed(1)

    def normal(*size: int, std: float) -> torch.Tensor:
        drawn = torch.randn(*size, generator=generator, device=device) * std
        return drawn.to(torch.bfloat16).cpu()

    ones = torch.ones(shape.hidden, dtype=torch.bfloat16)
    yield {
        "model.embed_tokens.weight": normal(shape.vocabulary, shape.hidden, std=1.0),
        "lm_head.weight": normal(shape.vocabulary, shape.hidden, std=2 * shape.hidden**-0.5),
        "model.norm.weight": ones,
    }
    for layer in range(shape.layers):
        norms = ("input_layernorm", "post_attention_layernorm")
        linears = {
            f"{path}.weight": normal(d_out, d_in, std=d_in**-0.5)
            for path, d_out, d_in in shape.modules(layer)
        }
        yield linears | {f"model.layers.{layer}.{norm}.weight": ones.clone() for norm in norms}


def write_adapters(directory: Path, shape: Shape, ranks: list[int], device: Device) -> int:
    """Adapters `a0`, `a1`, … with random factors, one for each rank. Returns the first one's bytes."""
    sizes = [_write_adapter(directory / f"a{n}", shape, n, rank, device) for n, rank in enumerate(ranks)]
    return sizes[0]


def _write_adapter(directory: Path, shape: Shape, number: int, rank: int, device: Device) -> int:
    directory.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator(device).manual_seed(100 + number)
    tensors = {}
    for layer in range(shape.layers):
        for path, d_out, d_in in shape.modules(layer):
            lora_a = torch.randn(rank, d_in, generator=generator, device=device) * d_in**-0.5
            lora_b = torch.randn(d_out, rank, generator=generator, device=device) * 0.5 * rank**-0.5
            tensors[f"base_model.model.{path}.lora_A.weight"] = lora_a.to(torch.bfloat16).cpu()
            tensors[f"base_model.model.{path}.lora_B.weight"] = lora_b.to(torch.bfloat16).cpu().contiguous()
    save_file(tensors, directory / "adapter_model.safetensors", metadata=METADATA)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "random",
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(name for names in GROUPS.values() for name in names),
        "inference_mode": True,
    }
    (directory / "adapter_config.json").write_text(json.dumps(config))
    return sum(tensor.nbytes for tensor in tensors.values())


def saved_adapter(directory: Path, number: int) -> Path:
    """The tensors of adapter `number`."""
    return directory / f"a{number}" / "adapter_model.safetensors"
