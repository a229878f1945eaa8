"""Configs of a few well-known models, as their repositories publish them: planning works offline by name.

Only what decides shapes is kept. Any other model: the directory or config.json, or a hub id where there is a
network.
"""

from typing import Any, Final

Config = dict[str, Any]


def _llama(hidden: int, inner: int, layers: int, heads: int, **others: Any) -> Config:
    """Llama 3 and 3.1: both have the same shapes."""
    return _row("llama", 128256, (hidden, inner, layers, heads, 8), tie_word_embeddings=False) | others


def _row(model_type: str, vocab: int, sizes: tuple[int, int, int, int, int], **others: Any) -> Config:
    hidden, inner, layers, heads, kv_heads = sizes
    return {
        "model_type": model_type,
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        **others,
    }


KNOWN_MODELS: Final[dict[str, Config]] = {
    "llama-3.2-1b": _llama(2048, 8192, 16, 32, tie_word_embeddings=True, head_dim=64),
    "llama-3-8b": _llama(4096, 14336, 32, 32),
    "llama-3-70b": _llama(8192, 28672, 80, 64),
    "qwen2.5-0.5b": _row("qwen2", 151936, (896, 4864, 24, 14, 2), tie_word_embeddings=True),
    "qwen2.5-7b": _row("qwen2", 152064, (3584, 18944, 28, 28, 4), tie_word_embeddings=False),
    "qwen2.5-72b": _row("qwen2", 152064, (8192, 29568, 80, 64, 8), tie_word_embeddings=False),
    "mistral-7b": _row("mistral", 32000, (4096, 14336, 32, 32, 8), tie_word_embeddings=False),
    "gemma-2-9b": _row("gemma2", 256000, (3584, 14336, 42, 16, 8), tie_word_embeddings=True, head_dim=256),
}
