"""Writes a base and its adapters as GGUF files, with exactly the numbers that our server computes with.

The vocabulary is made up (see `vocabulary`). No token ends an answer, as with `ignore_eos` on our server.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, LlamaFileType
from safetensors import safe_open

from lora_compose.adapters.peft.base_weights import checkpoint_files
from lora_compose.adapters.peft.checkpoint import Lora, LoraModule
from lora_compose.benchmarks.llamacpp.layouts import Layout, cannot_write
from lora_compose.benchmarks.llamacpp.vocabulary import token_text

TYPES: Final = {
    torch.float32: (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    torch.bfloat16: (GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
    torch.float16: (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
}


def write_base(base: Path, target: Path, dtype: torch.dtype) -> None:
    """Write the base in the directory `base`, its matrices in `dtype`. llama.cpp keeps vectors in float32.

    One tensor at a time is in memory. Raises LoraComposeError("llamacpp_unavailable")."""
    layout = Layout.of(base)
    writer = gguf.GGUFWriter(target, layout.name)
    _add_shape(writer, layout, dtype)
    _add_vocabulary(writer, int(layout.config["vocab_size"]))
    for name, shape in _shapes(base, layout):
        _announce(writer, layout.tensor(name), shape, dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, tensor in _tensors(base, layout):
        writer.write_tensor_data(_numbers(layout.rows(name, tensor), dtype))
    writer.close()


def write_adapter(lora: Lora, layout: Layout, target: Path, dtype: torch.dtype) -> None:
    """Write an adapter with factors in `dtype`. Raises LoraComposeError("llamacpp_unavailable")."""
    check_adapter(lora, layout)
    writer = gguf.GGUFWriter(target, layout.name)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    alpha = _common_alpha(lora)
    writer.add_float32("adapter.lora.alpha", alpha)
    for name, module in lora.modules.items():
        scaling = 1.0 if alpha else module.scaling
        place = layout.module(name)
        lora_B = layout.rows(name, module.lora_B.float() * scaling)
        for suffix, factor in (("lora_a", module.lora_A), ("lora_b", lora_B)):
            writer.add_tensor(f"{place}.{suffix}", _numbers(factor, dtype), raw_dtype=TYPES[dtype][0])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def check_adapter(lora: Lora, layout: Layout) -> None:
    """Raise LoraComposeError("llamacpp_unavailable") if llama.cpp cannot compute with the adapter."""
    for name, module in lora.modules.items():
        if module.magnitude is not None or module.bias is not None or module.embedding:
            raise cannot_write(f"llama.cpp has no DoRA, lora_bias or LoRA of an embedding ({name})")
        layout.module(name)


def _add_shape(writer: gguf.GGUFWriter, layout: Layout, dtype: torch.dtype) -> None:
    config = layout.config
    writer.add_file_type(TYPES[dtype][1])
    writer.add_context_length(int(config["max_position_embeddings"]))
    writer.add_embedding_length(int(config["hidden_size"]))
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_block_count(int(config["num_hidden_layers"]))
    writer.add_head_count(layout.heads)
    writer.add_head_count_kv(layout.key_heads)
    writer.add_key_length(layout.head_size)
    writer.add_value_length(layout.head_size)
    writer.add_rope_dimension_count(layout.head_size)
    writer.add_rope_freq_base(float(layout.rope.get("rope_theta") or 10000.0))
    writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))
    writer.add_vocab_size(int(config["vocab_size"]))


def _add_vocabulary(writer: gguf.GGUFWriter, size: int) -> None:
    writer.add_tokenizer_model("rwkv")  # the one kind that has no special tokens and needs no merges
    writer.add_token_list([token_text(number) for number in range(size)])
    writer.add_token_types([int(gguf.TokenType.NORMAL)] * size)


def _tensors(base: Path, layout: Layout) -> Iterator[tuple[str, torch.Tensor]]:
    for path in checkpoint_files(base):
        with safe_open(path, framework="pt") as file:
            for name in _kept(file.keys(), layout):
                yield name, file.get_tensor(name)


def _shapes(base: Path, layout: Layout) -> Iterator[tuple[str, list[int]]]:
    for path in checkpoint_files(base):
        with safe_open(path, framework="pt") as file:
            for name in _kept(file.keys(), layout):
                yield name, file.get_slice(name).get_shape()


def _kept(names: list[str], layout: Layout) -> list[str]:
    """Without a head that is tied to the embedding, and without the constants of older checkpoints."""
    tied = layout.config.get("tie_word_embeddings")
    return [
        name
        for name in names
        if not (tied and name == "lm_head.weight") and not name.endswith(".rotary_emb.inv_freq")
    ]


def _announce(writer: gguf.GGUFWriter, name: str, shape: list[int], dtype: torch.dtype) -> None:
    stored = _stored_as(len(shape), dtype)
    size = stored.itemsize * int(np.prod(shape))
    numpy_type = np.dtype(np.float32 if stored is torch.float32 else np.float16)
    writer.add_tensor_info(name, shape, numpy_type, size, TYPES[stored][0])


def _stored_as(axes: int, dtype: torch.dtype) -> torch.dtype:
    return dtype if axes > 1 else torch.float32


def _numbers(tensor: torch.Tensor, dtype: torch.dtype) -> "np.ndarray[Any, Any]":
    """The numbers as numpy's array; bfloat16, which numpy has not, as its 16 bits."""
    stored = tensor.to(_stored_as(tensor.dim(), dtype)).contiguous()
    return stored.view(torch.int16).numpy() if stored.dtype is torch.bfloat16 else stored.numpy()


def _common_alpha(lora: Lora) -> float:
    """lora_alpha, if all modules have the same rank and scaling. 0: lora_B is multiplied by the scaling."""
    modules: list[LoraModule] = list(lora.modules.values())
    first = modules[0]
    same = all((one.rank, one.scaling) == (first.rank, first.scaling) for one in modules)
    return first.rank * first.scaling if same else 0.0
