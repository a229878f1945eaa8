"""The shapes of causal language models, from a Hugging Face config alone, for a table of known model types.

The shapes are those that `AutoModelForCausalLM` would build; a test compares them for every row of the table.
The config's defaults are those of transformers. Other model types are refused, such as mixtures of experts,
where only some weights work on a token but all of them take memory. The linear layers of a block are grouped
by the input that they share, because a training step keeps this input once for the group.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

from lora_compose.adapters.errors import CommandCode, LoraComposeError

Source = Literal["norm", "attention", "mlp"]
"""The input of a group: the output of a norm, the output of the attention, or the product inside the MLP."""


@dataclass(frozen=True)
class Linear:
    """One linear layer of a block."""

    name: str
    """The name that `target_modules` uses, without the path."""
    d_in: int
    d_out: int
    bias: bool = False

    @property
    def weights(self) -> int:
        """Parameters without the bias. 4-bit quantization stores these."""
        return self.d_in * self.d_out

    @property
    def parameters(self) -> int:
        return self.weights + (self.d_out if self.bias else 0)


@dataclass(frozen=True)
class Group:
    """The linear layers of a block that read the same input."""

    source: Source
    linears: tuple[Linear, ...]

    @property
    def width(self) -> int:
        return self.linears[0].d_in


@dataclass(frozen=True)
class ModelShape:
    """The shape of one model. All blocks have the same shape."""

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
    """The number of norms over the hidden size in a block."""
    norm_parameters: int
    """Parameters of all norms of one block."""
    embedding_parameters: int
    """Parameters of the token embeddings, and of learned position embeddings."""
    final_norm_parameters: int
    tied: bool
    """True if the output embedding shares the parameters of the input embedding."""
    gated: bool = True
    """True if the MLP is down(act(gate(x)) * up(x)), False if it is down(act(up(x)))."""
    head_norms: bool = False
    """True if queries and keys are normalised for each head."""

    @cached_property
    def linears(self) -> tuple[Linear, ...]:
        """The linear layers of one block."""
        return tuple(linear for group in self.groups for linear in group.linears)

    @property
    def linear_parameters(self) -> int:
        """Parameters of the linear layers of all blocks, with biases, without the output embedding."""
        return self.layers * sum(linear.parameters for linear in self.linears)

    @property
    def head_parameters(self) -> int:
        return 0 if self.tied else self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        """Parameters of the whole model. Shared parameters count once."""
        norms = self.layers * self.norm_parameters + self.final_norm_parameters
        return self.linear_parameters + norms + self.embedding_parameters + self.head_parameters

    @property
    def queries(self) -> int:
        """Total width of all query heads."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Total width of all key heads, and also of all value heads."""
        return self.kv_heads * self.head_dim


@dataclass(frozen=True)
class Architecture:
    """How a model type differs from Llama."""

    qkv_bias: Callable[[Any], bool] = lambda config: bool(config.attention_bias)
    o_bias: Callable[[Any], bool] = lambda config: bool(config.attention_bias)
    mlp_bias: Callable[[Any], bool] = lambda _: False
    norms: int = 2
    head_norms: bool = False


def _never(_: Any) -> bool:
    return False


def _always(_: Any) -> bool:
    return True


LIKE_LLAMA: Final[dict[str, Architecture]] = {
    "llama": Architecture(mlp_bias=lambda config: bool(config.mlp_bias)),
    "mistral": Architecture(qkv_bias=_never, o_bias=_never),
    "qwen2": Architecture(qkv_bias=_always, o_bias=_never),
    "qwen3": Architecture(head_norms=True),
    "gemma": Architecture(),
    "gemma2": Architecture(norms=4),
}
KNOWN: Final = (*LIKE_LLAMA, "gpt2")


def shape_of(config: Any) -> ModelShape:
    """The shape of the model of `config`, a transformers config.

    Raises LoraComposeError("unknown_architecture") for a model type that is not in KNOWN, or an unsupported
    variant of one.
    """
    if config.model_type == "gpt2":
        return _gpt2(config)
    row = LIKE_LLAMA.get(config.model_type)
    if row is None:
        raise _unknown(f"the model type {config.model_type!r}")
    return _like_llama(config, row)


def _unknown(what: str) -> LoraComposeError:
    message = f"Memory planning does not support {what}. The supported model types are: {', '.join(KNOWN)}"
    return LoraComposeError(CommandCode.UNKNOWN_ARCHITECTURE, message, "model")


def _like_llama(config: Any, row: Architecture) -> ModelShape:
    hidden, inner = config.hidden_size, config.intermediate_size
    head_dim = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    kv_heads = config.num_key_value_heads or config.num_attention_heads
    queries, keys = config.num_attention_heads * head_dim, kv_heads * head_dim
    qkv, mlp = row.qkv_bias(config), row.mlp_bias(config)
    groups = (
        _group("norm", [("q_proj", queries), ("k_proj", keys), ("v_proj", keys)], hidden, qkv),
        Group("attention", (Linear("o_proj", queries, hidden, row.o_bias(config)),)),
        _group("norm", [("gate_proj", inner), ("up_proj", inner)], hidden, mlp),
        Group("mlp", (Linear("down_proj", inner, hidden, mlp),)),
    )
    return ModelShape(
        model_type=config.model_type,
        layers=config.num_hidden_layers,
        hidden=hidden,
        vocab=config.vocab_size,
        heads=config.num_attention_heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate=inner,
        groups=groups,
        norms=row.norms,
        norm_parameters=row.norms * hidden + (2 * head_dim if row.head_norms else 0),
        embedding_parameters=config.vocab_size * hidden,
        final_norm_parameters=hidden,
        tied=bool(config.tie_word_embeddings),
        head_norms=row.head_norms,
    )


def _group(source: Any, outputs: Sequence[tuple[str, int]], d_in: int, bias: bool) -> Group:
    return Group(source, tuple(Linear(name, d_in, d_out, bias) for name, d_out in outputs))


def _gpt2(config: Any) -> ModelShape:
    """GPT-2: every linear layer has a bias, norms have two vectors, and position embeddings are learned."""
    if config.add_cross_attention:
        raise _unknown("a gpt2 with cross-attention")
    hidden, inner = config.n_embd, config.n_inner or 4 * config.n_embd
    groups = (
        Group("norm", (Linear("c_attn", hidden, 3 * hidden, True),)),
        Group("attention", (Linear("c_proj", hidden, hidden, True),)),
        Group("norm", (Linear("c_fc", hidden, inner, True),)),
        Group("mlp", (Linear("c_proj", inner, hidden, True),)),
    )
    return ModelShape(
        model_type="gpt2",
        layers=config.n_layer,
        hidden=hidden,
        vocab=config.vocab_size,
        heads=config.n_head,
        kv_heads=config.n_head,
        head_dim=hidden // config.n_head,
        intermediate=inner,
        groups=groups,
        norms=2,
        norm_parameters=4 * hidden,
        embedding_parameters=(config.vocab_size + config.n_positions) * hidden,
        final_norm_parameters=2 * hidden,
        tied=bool(config.tie_word_embeddings),
        gated=False,
    )
