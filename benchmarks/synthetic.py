"""Makes models and adapters for benchmarks. Random weights decode as fast as trained weights.

`python -m lora_compose.benchmarks.synthetic DIR` writes a base of random parameters and eight adapters of
rank 16. `DIR/base` and `DIR/adapters` fit the options of `lora-compose bench serve --model DIR/base
--adapter-root DIR/adapters --adapters s0,s1,...`.

`write_fresh` writes new adapters, which are copies of the shipped adapters with a little noise.
"""

import shutil
from pathlib import Path
from typing import Annotated

import torch
import typer
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from lora_compose.benchmarks.servers import EMBEDDED_ADAPTERS, EMBEDDED_BASE

NOISE = 0.02


def write_fresh(count: int, root: Path, seed: int = 0) -> list[Path]:
    """Write `count` PEFT directories under `root`. All their weights are different."""
    originals = sorted(path for path in EMBEDDED_ADAPTERS.iterdir() if path.is_dir())
    generator = torch.Generator().manual_seed(seed)
    directories = []
    for number in range(count):
        original = originals[number % len(originals)]
        directory = root / f"fresh{seed}-{number}"
        directory.mkdir()
        shutil.copy(original / "adapter_config.json", directory)
        tensors = load_file(original / "adapter_model.safetensors")
        disturbed = {
            name: tensor * (1 + NOISE * torch.randn(tensor.shape, generator=generator))
            for name, tensor in tensors.items()
        }
        save_file(disturbed, directory / "adapter_model.safetensors", metadata={"format": "pt"})
        directories.append(directory)
    return directories


ADAPTERS = 8
RANK = 16
SHAPES = {
    "27M": {
        "hidden_size": 512,
        "intermediate_size": 1376,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
    },
    "316M": {
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_hidden_layers": 26,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
    },
}
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def shape(name: str) -> LlamaConfig:
    """A Llama configuration of the size `name`, with the testbed's special tokens."""
    return LlamaConfig(
        **SHAPES[name],
        vocab_size=4096,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )


def synthetic(
    directory: Annotated[Path, typer.Argument(help="Directory to write to. It is created.")],
    size: Annotated[str, typer.Option(help=f"Size of the base: {' or '.join(SHAPES)}.")] = "27M",
) -> None:
    """Write a base of random parameters and eight adapters for it."""
    if size not in SHAPES:
        raise typer.BadParameter(f"{size} must be one of {', '.join(SHAPES)}", param_hint="--size")
    torch.manual_seed(0)
    base = LlamaForCausalLM(shape(size))
    base.save_pretrained(directory / "base")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (EMBEDDED_BASE / name).exists():
            shutil.copy(EMBEDDED_BASE / name, directory / "base")
    for number in range(ADAPTERS):
        fresh = LlamaForCausalLM.from_pretrained(directory / "base")
        model = get_peft_model(fresh, LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TARGETS))
        factors = [parameter for name, parameter in model.named_parameters() if "lora_B" in name]
        with torch.no_grad():
            for factor in factors:
                factor.normal_(std=0.01)
        model.save_pretrained(directory / "adapters" / f"s{number}")
    typer.echo(
        f"wrote {base.num_parameters():,} parameters to {directory / 'base'} "
        f"and {ADAPTERS} adapters to {directory / 'adapters'}"
    )


if __name__ == "__main__":
    typer.run(synthetic)
