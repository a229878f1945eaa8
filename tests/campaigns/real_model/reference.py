"""What transformers and PEFT compute: log-probabilities of a text, and greedy answers."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.campaigns.real_model.chats import Chat

Weights = Mapping[str, float]
STACK = "stack"


class Reference:
    """A base in transformers, with adapters in PEFT."""

    def __init__(self, base: str, adapters: Path, names: Sequence[str], dtype: torch.dtype) -> None:
        torch.set_num_threads(1)  # two threads wait for each other where other programs use the cores
        self.tokenizer: Any = AutoTokenizer.from_pretrained(base)
        plain = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
        model = PeftModel.from_pretrained(plain, adapters / names[0], adapter_name=names[0])
        for name in names[1:]:
            model.load_adapter(adapters / name, adapter_name=name)
        self._model: Any = model.eval()
        self._name = names[0]

    def ids(self, chat: Chat, *, asks: bool) -> list[int]:
        """The tokens of a chat. `asks`: the assistant's turn begins at its end."""
        tokens = self.tokenizer.apply_chat_template(list(chat), add_generation_prompt=asks, return_dict=True)
        return list(tokens["input_ids"])

    @contextmanager
    def stacked(self, weights: Weights) -> Iterator[None]:
        """Answer as PEFT's `cat` of these adapters meanwhile. No weights: as the base."""
        if not weights:
            with self._model.disable_adapter():
                yield
            return
        self._model.add_weighted_adapter(list(weights), list(weights.values()), STACK, combination_type="cat")
        self._model.set_adapter(STACK)
        try:
            yield
        finally:
            self._model.set_adapter(self._name)
            self._model.delete_adapter(STACK)

    @torch.no_grad()
    def logprobs(self, ids: Sequence[int]) -> torch.Tensor:
        """The log-probability of each token after the first one, in float32."""
        logits: torch.Tensor = self._model(torch.tensor([ids])).logits[0].float()
        chosen = torch.tensor(ids[1:])
        return logits[:-1].log_softmax(-1).gather(1, chosen[:, None])[:, 0]

    @torch.no_grad()
    def greedy(self, ids: Sequence[int], max_tokens: int) -> list[int]:
        """The tokens of transformers' own greedy answer."""
        given = torch.tensor([ids])
        made = self._model.generate(
            input_ids=given,
            attention_mask=torch.ones_like(given),
            max_new_tokens=max_tokens,
            do_sample=False,
        )
        return [int(token) for token in made[0, len(ids) :]]

    @torch.no_grad()
    def lead(self, ids: Sequence[int]) -> float:
        """By how much the most likely next token leads the second one, in log-probability."""
        logits = self._model(torch.tensor([ids])).logits[0, -1].float()
        first, second = logits.log_softmax(-1).topk(2).values
        return float(first - second)
