"""An adapter in memory: for each module of the base that it changes, two thin factors and a scaling.

The delta a module adds to its weight is scaling * lora_B @ lora_A. Files are read and written in
`peft_format.py`; combining adapters is in `methods.py` and `merge.py`.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LoraModule:
    """What one adapter adds to one linear layer, in the dtype it was stored in."""

    lora_A: Tensor
    """(r, d_in)"""
    lora_B: Tensor
    """(d_out, r)"""
    scaling: float
    """lora_alpha / r, or lora_alpha / sqrt(r) for rsLoRA."""

    @property
    def rank(self) -> int:
        return self.lora_A.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in) of the weight it changes."""
        return self.lora_B.shape[0], self.lora_A.shape[1]

    def delta(self) -> Tensor:
        """The true delta scaling * lora_B @ lora_A, (d_out, d_in) in float32."""
        return (self.lora_B.float() * self.scaling) @ self.lora_A.float()

    def digest(self) -> bytes:
        """Identity of the content: equal values give equal digests, whatever file or dtype they came in."""
        content = hashlib.sha256(repr((self.shape, self.rank, self.scaling)).encode())
        for factor in (self.lora_A, self.lora_B):
            content.update(factor.to(torch.float32).contiguous().numpy().data)
        return content.digest()


@dataclass(frozen=True, eq=False)
class Lora:
    """An adapter: its modules by the base's own names, such as "model.layers.0.self_attn.q_proj"."""

    modules: dict[str, LoraModule]

    @property
    def rank(self) -> int:
        """The largest rank of any module: what a serving slot must hold."""
        return max(module.rank for module in self.modules.values())
