"""What has no composing server gets: the exact sum of some adapters, or a merge, as one PEFT directory."""

from collections.abc import Sequence
from pathlib import Path

import torch

from adapters.composition_grammar import parse
from adapters.export import export, find_members
from adapters.lora import Lora, LoraModule
from adapters.peft_format import open_adapter, write_adapter


def write_sum(members: Sequence[str], root: Path, home: Path) -> Path:
    """The exact stack of the adapters in `root/<name>`, under `home`; written once."""
    directory = home / "-".join(members)
    if not directory.exists():
        asked = parse("+".join(members))
        export(asked, find_members(asked, {name: root / name for name in members}, home), directory)
    return directory


def write_random(like: Path, rank: int, directory: Path, seed: int) -> None:
    """An adapter of `rank` on the modules that `like` has. What it says is noise, what it costs is not."""
    draw = torch.Generator().manual_seed(seed)
    modules = {}
    for name, module in open_adapter(like).modules.items():
        d_out, d_in = module.shape
        modules[name] = LoraModule(
            0.02 * torch.randn(rank, d_in, generator=draw),
            0.02 * torch.randn(d_out, rank, generator=draw),
            1.0,
        )
    directory.mkdir(parents=True)
    write_adapter(Lora(modules), directory, "")
