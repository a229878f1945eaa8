"""Any number of adapters nobody has seen: the shipped ones, slightly disturbed."""

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from benchmarks.servers import EMBEDDED_ADAPTERS

NOISE = 0.02


def write_fresh(count: int, root: Path, seed: int = 0) -> list[Path]:
    """`count` PEFT directories under `root`, each with its own bytes."""
    originals = sorted(path for path in EMBEDDED_ADAPTERS.iterdir() if path.is_dir())
    generator = torch.Generator().manual_seed(seed)
    made = []
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
        made.append(directory)
    return made
