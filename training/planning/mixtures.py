"""The shapes of mixtures of experts: Mixtral, Qwen3-MoE, and DeepSeek-V3 with its latent attention.

transformers keeps the matrices of all experts of a block in two parameters. PEFT's `all-linear` adapts them
and the router, one adapter for each expert, and leaves out the MLP of dense blocks and shared experts,
because their layers have the names of the experts' layers. bitsandbytes quantizes only `nn.Linear`, so with
QLoRA the experts stay in 16 bits. A test compares both with the libraries.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from lora_compose.training.planning.shapes import Block, Group, Linear, ModelShape

EXPERTS_STAY: Final = (
    "all-linear adapts the attention, the routers, and each expert with an adapter of its own, and leaves "
    "out the MLP of dense blocks and shared experts. --target-modules q_proj,v_proj (and others of the "
    "attention) plans for an adapter without experts."
)
NOT_QUANTIZED: Final = (
    "QLoRA does not quantize the experts: transformers keeps them as parameters, and bitsandbytes quantizes "
    "only linear layers."
)


def dense_mlp(
    hidden: int, inner: int, *, bias: bool = False, fused: bool = False, adapted: bool = True
) -> tuple[Group, Group]:
    """The groups of a gated MLP: gate and up, which may be one layer, and down."""
    outputs = [("gate_up_proj", 2 * inner)] if fused else [("gate_proj", inner), ("up_proj", inner)]
    first = tuple(Linear(name, hidden, d_out, bias, in_all_linear=adapted) for name, d_out in outputs)
    down = Linear("down_proj", inner, hidden, bias, in_all_linear=adapted)
    return Group("norm", first), Group("mlp", (down,))


@dataclass(frozen=True)
class Experts:
    """The experts of a block."""

    count: int
    active: int
    inner: int
    """The width inside one expert."""
    shared: int = 0
    """The width inside the expert that works on every token."""

    def groups(self, hidden: int) -> tuple[Group, ...]:
        """The router, the experts, and the shared expert."""
        gate_up = Linear(
            "gate_up_proj", hidden, 2 * self.inner, experts=self.count, is_module=False, rank_scale=2
        )
        down = Linear("down_proj", self.inner, hidden, experts=self.count, is_module=False)
        return (
            Group("norm", (Linear("gate", hidden, self.count, is_module=False),)),
            Group("norm", (gate_up,), self.active),
            Group("mlp", (down,), self.active),
            *(dense_mlp(hidden, self.shared, adapted=False) if self.shared else ()),
        )

    def block(self, count: int, attention: "Attention") -> Block:
        hidden = attention.hidden
        return Block(
            count,
            (*attention.groups, *self.groups(hidden)),
            attention.norm_width,
            attention.norm_parameters,
            mlp_width=self.active * self.inner + self.shared,
            dispatched=2 * self.active * hidden,
            routed=self.count,
        )


@dataclass(frozen=True)
class Attention:
    """The attention of a block, with the norms of the block."""

    hidden: int
    groups: tuple[Group, ...]
    norm_width: int
    norm_parameters: int

    def dense(self, count: int, inner: int) -> Block:
        """Blocks with this attention and an MLP without experts."""
        groups = (*self.groups, *dense_mlp(self.hidden, inner, adapted=False))
        return Block(count, groups, self.norm_width, self.norm_parameters, mlp_width=inner)


def _grouped_attention(config: Any, head_dim: int, *, bias: bool, head_norms: bool) -> Attention:
    hidden = config.hidden_size
    queries, keys = config.num_attention_heads * head_dim, config.num_key_value_heads * head_dim
    outputs = (("q_proj", queries), ("k_proj", keys), ("v_proj", keys))
    groups = (
        Group("norm", tuple(Linear(name, hidden, d_out, bias) for name, d_out in outputs)),
        Group("attention", (Linear("o_proj", queries, hidden, bias),)),
    )
    return Attention(hidden, groups, 2 * hidden, 2 * hidden + (2 * head_dim if head_norms else 0))


def _mixtral(config: Any) -> ModelShape:
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = _grouped_attention(config, head_dim, bias=False, head_norms=False)
    experts = Experts(config.num_local_experts, config.num_experts_per_tok, config.intermediate_size)
    return _shape(config, head_dim, (experts.block(config.num_hidden_layers, attention),))


def _qwen3_moe(config: Any) -> ModelShape:
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = _grouped_attention(config, head_dim, bias=bool(config.attention_bias), head_norms=True)
    experts = Experts(config.num_experts, config.num_experts_per_tok, config.moe_intermediate_size)
    sparse = sum(
        index not in config.mlp_only_layers
        and config.num_experts > 0
        and (index + 1) % config.decoder_sparse_step == 0
        for index in range(config.num_hidden_layers)
    )
    blocks = (
        attention.dense(config.num_hidden_layers - sparse, config.intermediate_size),
        experts.block(sparse, attention),
    )
    return _shape(config, head_dim, blocks, head_norms=True)


def _deepseek_v3(config: Any) -> ModelShape:
    """Queries, keys and values come from narrow latents, each with a norm (arXiv 2405.04434, section 2.1)."""
    head_dim = config.qk_nope_head_dim + config.qk_rope_head_dim
    attention = _latent_attention(config, head_dim)
    dense = min(config.first_k_dense_replace, config.num_hidden_layers)
    experts = Experts(
        config.n_routed_experts,
        config.num_experts_per_tok,
        config.moe_intermediate_size,
        config.moe_intermediate_size * config.n_shared_experts,
    )
    blocks = (
        attention.dense(dense, config.intermediate_size),
        experts.block(config.num_hidden_layers - dense, attention),
    )
    return _shape(config, head_dim, blocks, value_dim=config.v_head_dim, kv_heads=config.num_attention_heads)


def _latent_attention(config: Any, head_dim: int) -> Attention:
    hidden, heads, bias = config.hidden_size, config.num_attention_heads, bool(config.attention_bias)
    latent, queries = config.kv_lora_rank, heads * head_dim
    wide = heads * (config.qk_nope_head_dim + config.v_head_dim)
    kv_a = Linear("kv_a_proj_with_mqa", hidden, latent + config.qk_rope_head_dim, bias)
    if config.q_lora_rank is None:
        narrow = 0
        first = Linear("q_proj", hidden, queries)
    else:
        narrow = config.q_lora_rank
        first = Linear("q_a_proj", hidden, narrow, bias)
    groups = (
        Group("norm", (first, kv_a)),
        *([Group("norm", (Linear("q_b_proj", narrow, queries),))] if narrow else ()),
        Group("norm", (Linear("kv_b_proj", latent, wide),)),
        Group("attention", (Linear("o_proj", heads * config.v_head_dim, hidden, bias),)),
    )
    width = 2 * hidden + latent + narrow
    return Attention(hidden, groups, width, width)


def _shape(config: Any, head_dim: int, blocks: tuple[Block, ...], **others: Any) -> ModelShape:
    values = {
        "model_type": config.model_type,
        "hidden": config.hidden_size,
        "vocab": config.vocab_size,
        "heads": config.num_attention_heads,
        "kv_heads": config.num_key_value_heads,
        "head_dim": head_dim,
        "intermediate": config.intermediate_size,
        "blocks": tuple(block for block in blocks if block.count),
        "embedding_parameters": config.vocab_size * config.hidden_size,
        "final_norm_parameters": config.hidden_size,
        "tied": bool(config.tie_word_embeddings),
        "notes": (EXPERTS_STAY, NOT_QUANTIZED),
    }
    return ModelShape(**(values | others))


MIXTURES: Final[dict[str, Callable[[Any], ModelShape]]] = {
    "mixtral": _mixtral,
    "qwen3_moe": _qwen3_moe,
    "deepseek_v3": _deepseek_v3,
}
