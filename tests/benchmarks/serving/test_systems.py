"""Adapters that are written for servers that cannot compose."""

from pathlib import Path

import torch

from lora_compose.adapters.peft.checkpoint import open_adapter
from lora_compose.benchmarks.servers import EMBEDDED_ADAPTERS
from lora_compose.benchmarks.serving.systems import write_random, write_sum


def test_a_sum_is_the_sum_of_deltas_and_is_written_once(tmp_path: Path) -> None:
    directory = write_sum(["roll", "upper"], EMBEDDED_ADAPTERS, tmp_path)
    name, module = next(iter(open_adapter(directory).modules.items()))
    members = [open_adapter(EMBEDDED_ADAPTERS / member).modules[name].delta() for member in ("roll", "upper")]
    torch.testing.assert_close(module.delta(), members[0] + members[1])
    assert write_sum(["roll", "upper"], EMBEDDED_ADAPTERS, tmp_path) == directory


def test_a_generated_adapter_has_the_modules_of_the_one_it_is_like(tmp_path: Path) -> None:
    write_random(EMBEDDED_ADAPTERS / "roll", 16, tmp_path / "made", seed=0)
    made, like = open_adapter(tmp_path / "made"), open_adapter(EMBEDDED_ADAPTERS / "roll")
    assert made.rank == 16
    assert made.modules.keys() == like.modules.keys()
