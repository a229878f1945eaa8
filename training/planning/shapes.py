"""A causal language model's shapes, from its config alone: every weight there is, and none that is not.

What `AutoModelForCausalLM` would build, counted without building it; a test holds the two together for every
row of `architectures.py`. A layer's linear layers are grouped by the input they share, because what a
training step has to keep of an input it keeps once for the group.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Source = Literal["norm", "attention", "mlp"]
"""Where a group's input comes from: a norm's output, the attention's, or the product inside the MLP."""


@dataclass(frozen=True)
class Linear:
    """One linear layer of a block."""

    name: str
    """As `target_modules` names it, without the path."""
    d_in: int
    d_out: int
    bias: bool = False

    @property
    def weights(self) -> int:
        """Parameters without the bias: what 4-bit quantization stores."""
        return self.d_in * self.d_out

    @property
    def parameters(self) -> int:
        return self.weights + (self.d_out if self.bias else 0)


@dataclass(frozen=True)
class Group:
    """The linear layers that read one and the same input."""

    source: Source
    linears: tuple[Linear, ...]

    @property
    def width(self) -> int:
        return self.linears[0].d_in


@dataclass(frozen=True)
class ModelShape:
    """One model. All blocks are alike."""

    model_type: str
    layers: int
    hidden: int
    vocab: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    groups: tuple[Group, ...]
    norms: int
    """Norms over the hidden size in a block."""
    norm_parameters: int
    """Of one block, all its norms together."""
    embedding_parameters: int
    """Token and, where learnt, position embeddings."""
    final_norm_parameters: int
    tied: bool
    """The output embedding is the input's, and so no parameter of its own."""
    gated: bool = True
    """The MLP is down(act(gate(x)) * up(x)), not down(act(up(x)))."""
    head_norms: bool = False
    """Queries and keys are normalised head by head."""

    @cached_property
    def linears(self) -> tuple[Linear, ...]:
        """Of one block."""
        return tuple(linear for group in self.groups for linear in group.linears)

    @property
    def linear_parameters(self) -> int:
        """Of all blocks, biases included; the output embedding is no part of it."""
        return self.layers * sum(linear.parameters for linear in self.linears)

    @property
    def head_parameters(self) -> int:
        return 0 if self.tied else self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        """Of the whole model, each once."""
        norms = self.layers * self.norm_parameters + self.final_norm_parameters
        return self.linear_parameters + norms + self.embedding_parameters + self.head_parameters

    @property
    def queries(self) -> int:
        """Width of all query heads together."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Width of all key heads together, and of all value heads."""
        return self.kv_heads * self.head_dim
