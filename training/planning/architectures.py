"""The shapes of causal language models, from a Hugging Face config alone, for a table of known model types.

The shapes are those that `AutoModelForCausalLM` would build; a test compares them for every row of the table.
The config's defaults are those of transformers. Other model types are refused.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.training.planning.mixtures import MIXTURES, dense_mlp
from lora_compose.training.planning.shapes import Block, Group, Linear, ModelShape, Source


@dataclass(frozen=True)
class Architecture:
    """How a model type differs from Llama."""

    qkv_bias: Callable[[Any], bool] = lambda config: bool(config.attention_bias)
    o_bias: Callable[[Any], bool] = lambda config: bool(config.attention_bias)
    mlp_bias: Callable[[Any], bool] = lambda _: False
    norms: int = 2
    head_norms: bool = False
    fused: bool = False
    """True if q, k and v are one layer, and gate and up are one."""


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
    "gemma3_text": Architecture(norms=4, head_norms=True),
    "phi3": Architecture(qkv_bias=_never, o_bias=_never, fused=True),
}
KNOWN: Final = (*LIKE_LLAMA, *MIXTURES, "gpt2")
VISION: Final = (
    "The text model is planned. The vision encoder and its projection are not counted: add their weights, "
    "0.4 B parameters for gemma3."
)


def shape_of(config: Any) -> ModelShape:
    """The shape of the model of `config`, a transformers config.

    Raises LoraComposeError("unknown_architecture") for a model type that is not in KNOWN, or an unsupported
    variant of one.
    """
    if config.model_type == "gpt2":
        return _gpt2(config)
    if config.model_type == "gemma3":
        return replace(shape_of(config.text_config), notes=(VISION,))
    if (mixture := MIXTURES.get(config.model_type)) is not None:
        return mixture(config)
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
    qkv = _group(
        "norm", [("q_proj", queries), ("k_proj", keys), ("v_proj", keys)], hidden, row.qkv_bias(config)
    )
    if row.fused:
        qkv = _group("norm", [("qkv_proj", queries + 2 * keys)], hidden, False)
    groups = (
        qkv,
        Group("attention", (Linear("o_proj", queries, hidden, row.o_bias(config)),)),
        *dense_mlp(hidden, inner, bias=row.mlp_bias(config), fused=row.fused),
    )
    block = Block(
        count=config.num_hidden_layers,
        groups=groups,
        norm_width=row.norms * hidden,
        norm_parameters=row.norms * hidden + (2 * head_dim if row.head_norms else 0),
        mlp_width=inner,
    )
    return ModelShape(
        model_type=config.model_type,
        hidden=hidden,
        vocab=config.vocab_size,
        heads=config.num_attention_heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate=inner,
        blocks=(block,),
        embedding_parameters=config.vocab_size * hidden,
        final_norm_parameters=hidden,
        tied=bool(config.tie_word_embeddings),
        head_norms=row.head_norms,
        softcap=getattr(config, "final_logit_softcapping", None) is not None,
    )


def _group(source: Source, outputs: Sequence[tuple[str, int]], d_in: int, bias: bool) -> Group:
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
    block = Block(config.n_layer, groups, norm_width=2 * hidden, norm_parameters=4 * hidden, mlp_width=inner)
    return ModelShape(
        model_type="gpt2",
        hidden=hidden,
        vocab=config.vocab_size,
        heads=config.n_head,
        kv_heads=config.n_head,
        head_dim=hidden // config.n_head,
        intermediate=inner,
        blocks=(block,),
        embedding_parameters=(config.vocab_size + config.n_positions) * hidden,
        final_norm_parameters=2 * hidden,
        tied=bool(config.tie_word_embeddings),
        gated=False,
    )
