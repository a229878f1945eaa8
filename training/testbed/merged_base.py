"""A base that answers with an adapter's deltas added to its weights.

It measures offline and without PEFT, so that only the composition that our code wrote is measured.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lora_compose.adapters.peft.checkpoint import Lora
from lora_compose.training.data.messages import Message
from lora_compose.training.evaluation.models import LocalModel
from lora_compose.training.evaluation.served_chat import ServedChat


class MergedBase:
    """The base, with an adapter's deltas added to its weights for a while.

    Deltas are added to weights in float32. The model computes in `dtype`, as a server with fused adapters
    does. The weights are restored from copies, bit for bit, and not by subtraction.
    """

    def __init__(
        self, base: Path, longest_answer: int, dtype: torch.dtype = torch.float32, batch: int = 64
    ) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        self._weights = {
            name: module.weight.detach().clone()
            for name, module in self.model.named_modules()
            if isinstance(module, torch.nn.Linear)
        }
        self.model.to(dtype)
        self._chat = ServedChat.of(AutoTokenizer.from_pretrained(base), self.model)
        self._longest_answer = longest_answer
        self._batch = batch

    @contextmanager
    @torch.no_grad()
    def holding(self, adapter: Lora) -> Iterator[None]:
        """Add the adapter's deltas to the weights while the context is open."""
        try:
            for name, module in adapter.modules.items():
                self.model.get_submodule(name).weight.copy_(self._weights[name] + module.delta())
            yield
        finally:
            for name in adapter.modules:
                self.model.get_submodule(name).weight.copy_(self._weights[name])

    def ask(self, messages: Sequence[str]) -> list[str]:
        """Greedy answers with the current weights, one for each user message, in order."""
        prompts: list[list[Message]] = [[{"role": "user", "content": text}] for text in messages]
        return LocalModel(self.model, self._chat, self._batch).answer(prompts, self._longest_answer)
