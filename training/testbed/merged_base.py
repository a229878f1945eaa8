"""The base with an adapter's true deltas added to its weights, and the base again, bit for bit.

Offline and without PEFT: what is measured is the composition that our own code wrote, alone.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapters.lora import Lora
from training.testbed.answering import ask


class MergedBase:
    """One model in memory; weights are put back from copies, never by subtraction."""

    def __init__(self, base: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        self.model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)

    @contextmanager
    @torch.no_grad()
    def holding(self, adapter: Lora) -> Iterator[None]:
        """The adapter merged in while the context is open."""
        originals = {name: self.model.get_submodule(name).weight for name in adapter.modules}
        copies = {name: weight.clone() for name, weight in originals.items()}
        try:
            for name, module in adapter.modules.items():
                originals[name].add_(module.delta())
            yield
        finally:
            for name, weight in originals.items():
                weight.copy_(copies[name])

    def ask(self, messages: Sequence[str]) -> list[str]:
        """Greedy answers of what it holds now."""
        return ask(self.model, self.tokenizer, messages)
