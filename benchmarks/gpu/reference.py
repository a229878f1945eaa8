"""The right answers: transformers in float32, with each composition added to the weights as a matrix."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from lora_compose.benchmarks.gpu.engine import EngineAnswer, Weights
from lora_compose.benchmarks.gpu.models import saved_adapter
from lora_compose.benchmarks.gpu.run import Device

A_SUFFIX, B_SUFFIX = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True)
class Distance:
    """Between the engine's answers and the reference, over the tokens whose logprobs the engine names."""

    mean: float
    worst: float
    same_best_token: float
    """The share of positions where both have the same best token."""


class DenseReference:
    """One model. `compose` changes its weights for everything that is asked afterwards."""

    def __init__(self, model: Path, adapters: Path, device: Device) -> None:
        loaded = LlamaForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="eager")
        self._model = loaded.to(device).eval()
        self._base = {name: weight.detach().clone() for name, weight in self._model.named_parameters()}
        self._adapters, self._device = adapters, device

    def compose(self, weights: Weights) -> None:
        """`W + Σ wᵢBᵢAᵢ` in float32, from the base's weights. The adapters' scaling is 1."""
        with torch.no_grad():
            for name, parameter in self._model.named_parameters():
                parameter.copy_(self._base[name])
            parameters = dict(self._model.named_parameters())
            for number, weight in weights.items():
                for name, delta in self._deltas(number):
                    parameters[name] += weight * delta

    def _deltas(self, number: int) -> list[tuple[str, torch.Tensor]]:
        tensors = load_file(saved_adapter(self._adapters, number), device=self._device)
        modules = [name.removesuffix(A_SUFFIX) for name in tensors if name.endswith(A_SUFFIX)]
        return [
            (
                module.removeprefix("base_model.model.") + ".weight",
                tensors[module + B_SUFFIX].float() @ tensors[module + A_SUFFIX].float(),
            )
            for module in modules
        ]

    def distance(self, prompts: Sequence[Sequence[int]], answers: Sequence[EngineAnswer]) -> Distance:
        """The distance of the answers to these prompts from the weights of the last `compose`."""
        errors: list[float] = []
        agreed: list[bool] = []
        for prompt, answer in zip(prompts, answers, strict=True):
            expected = self._logprobs(prompt, answer.tokens)
            for row, token, best in zip(expected, answer.tokens, answer.best, strict=True):
                errors += [abs(logprob - float(row[one])) for one, logprob in best.items()]
                agreed.append(int(row.argmax()) == token)
        return Distance(statistics.fmean(errors), max(errors), statistics.fmean(agreed))

    def _logprobs(self, prompt: Sequence[int], tokens: Sequence[int]) -> torch.Tensor:
        """A row for each of `tokens`, given the prompt and the tokens before it."""
        ids = torch.tensor([[*prompt, *tokens]], device=self._device)
        with torch.no_grad():
            logits = self._model(ids).logits[0, len(prompt) - 1 : -1]
        return torch.log_softmax(logits.float(), -1).cpu()
