"""The shape of a causal language model: its linear layers, blocks, embeddings and norms.

The linear layers of a block are grouped by the input that they share, because a training step keeps this
input once for the group. The matrices of all experts of a mixture count as one layer with `experts` matrices:
all take memory, and `active` of them work on a token.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Source = Literal["norm", "attention", "mlp"]
"""The input of a group: the output of a norm, the output of the attention, or the product inside the MLP."""


@dataclass(frozen=True)
class Linear:
    """One linear layer of a block, or the matrices of all experts of a block."""

    name: str
    """The name that `target_modules` uses, without the path."""
    d_in: int
    d_out: int
    bias: bool = False
    experts: int = 1
    """The number of matrices."""
    is_module: bool = True
    """False for parameters that are not in an `nn.Linear`, as experts and routers. They are not quantized."""
    rank_scale: int = 1
    """The rank of an adapter in units of that of others. PEFT doubles it for two fused layers of experts."""
    in_all_linear: bool = True
    """False if PEFT's `all-linear` leaves the layer out."""

    @property
    def weights(self) -> int:
        """Parameters without the bias."""
        return self.experts * self.d_in * self.d_out

    @property
    def parameters(self) -> int:
        return self.weights + (self.d_out if self.bias else 0)

    @property
    def adapter_width(self) -> int:
        """Parameters of an adapter at rank 1. PEFT gives each expert an adapter of its own."""
        return self.rank_scale * self.experts * (self.d_in + self.d_out)


@dataclass(frozen=True)
class Group:
    """The linear layers of a block that read the same input."""

    source: Source
    linears: tuple[Linear, ...]
    active: int = 1
    """The number of experts that read a copy of a token."""

    @property
    def width(self) -> int:
        return self.linears[0].d_in * self.active


@dataclass(frozen=True)
class Block:
    """Blocks of one kind."""

    count: int
    groups: tuple[Group, ...]
    norm_width: int
    """Width of the inputs of all norms, without those of each head."""
    norm_parameters: int
    """Parameters of all norms."""
    mlp_width: int
    """The width inside the MLP; of a mixture, that of all experts that work on a token."""
    dispatched: int = 0
    """Width of a token's copies for the experts, and of what they give back."""
    routed: int = 0
    """The number of experts that a router scores, in float32."""

    @cached_property
    def linears(self) -> tuple[Linear, ...]:
        return tuple(linear for group in self.groups for linear in group.linears)

    @property
    def modules(self) -> tuple[Linear, ...]:
        """The layers that bitsandbytes quantizes."""
        return tuple(linear for linear in self.linears if linear.is_module)


@dataclass(frozen=True)
class ModelShape:
    """The shape of one model."""

    model_type: str
    hidden: int
    vocab: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    """The width inside the MLP of dense blocks."""
    blocks: tuple[Block, ...]
    embedding_parameters: int
    """Parameters of the token embeddings, and of learned position embeddings."""
    final_norm_parameters: int
    tied: bool
    """True if the output embedding shares the parameters of the input embedding."""
    gated: bool = True
    """True if the MLP is down(act(gate(x)) * up(x)), False if it is down(act(up(x)))."""
    head_norms: bool = False
    """True if queries and keys are normalised for each head."""
    value_dim: int | None = None
    """Width of a value head, if it is not `head_dim`."""
    softcap: bool = False
    """True if logits are capped: logits / cap, and their tanh, are kept too."""
    notes: tuple[str, ...] = ()
    """What the plan leaves out or takes for granted, one sentence each."""

    @property
    def layers(self) -> int:
        return sum(block.count for block in self.blocks)

    @cached_property
    def linears(self) -> tuple[Linear, ...]:
        """The linear layers of one block of each kind."""
        return tuple(linear for block in self.blocks for linear in block.linears)

    @property
    def linear_parameters(self) -> int:
        """Parameters of the linear layers of all blocks, with biases, without the output embedding."""
        return sum(block.count * linear.parameters for block in self.blocks for linear in block.linears)

    @property
    def head_parameters(self) -> int:
        return 0 if self.tied else self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        """Parameters of the whole model. Shared parameters count once."""
        norms = sum(block.count * block.norm_parameters for block in self.blocks)
        ends = self.final_norm_parameters + self.embedding_parameters + self.head_parameters
        return self.linear_parameters + norms + ends

    @property
    def queries(self) -> int:
        """Total width of all query heads."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Total width of all key heads."""
        return self.kv_heads * self.head_dim

    @property
    def values(self) -> int:
        """Total width of all value heads."""
        return self.kv_heads * (self.value_dim or self.head_dim)

    @property
    def attended(self) -> int:
        """Width of the output of the attention, before its projection."""
        return self.heads * (self.value_dim or self.head_dim)
