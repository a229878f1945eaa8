"""The input embedding and the output head, with LoRA for `GroupedPunicaWrapper`.

Upstream's layers for them give every slot a matrix of V rows at the largest rank, and need it to be filled.
These layers have no slots: the wrapper knows the adapters of the batch. `embedding_layers` puts them in place
of the model's own.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from typing_extensions import override
from vllm.lora.layers import BaseLayerWithLoRA, LogitsProcessorWithLoRA, VocabParallelEmbeddingWithLoRA
from vllm.lora.utils import is_in_target_modules, replace_submodule
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

INPUT = "input_embeddings"
OUTPUT = "output_embeddings"


class GroupedEmbedding(VocabParallelEmbeddingWithLoRA):
    """The input embedding: the base's rows, and `B[token] A` of each adapter of the batch."""

    @override
    def create_lora_weights(self, *_: Any, **__: Any) -> None:
        """No slots."""

    @override
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.base_layer(x)
        self.punica_wrapper.add_embedding(output, x, self)
        return output


class GroupedLogitsProcessor(LogitsProcessorWithLoRA):
    """The output head. Upstream's `_get_logits` calls `add_lora_logits` with the two tensors below."""

    width: int
    """The number of logits of a row: the tokens, and vLLM's padding."""
    bias: torch.Tensor | None
    """The head's own bias, `(width,)`, which is in its logits."""

    @override
    def create_lora_weights(self, *_: Any, **__: Any) -> None:
        """No slots. `lora_a_stacked` only names the layer."""
        self.lora_a_stacked = self.lora_b_stacked = torch.empty(0)
        mapping = self.sharded_to_full_mapping
        self.sharded_to_full_mapping_gpu = None if mapping is None else torch.tensor(mapping)


def padded(lora_b: torch.Tensor, width: int) -> torch.Tensor:
    """B `(V, r)` with rows of zeros up to `width`."""
    return functional.pad(lora_b, (0, 0, 0, width - len(lora_b)))


def embedding_layers(model: Any, targets: list[str] | None) -> Iterator[tuple[str, BaseLayerWithLoRA]]:
    """Replace the model's input embedding and logits processor, and yield their modules' names and layers.

    Only what the model's class lists in `embedding_modules` and `--lora-target-modules` does not leave out.
    """
    kinds = model.embedding_modules
    for name, module in list(model.named_modules(remove_duplicate=False)):
        kind = kinds.get(name.rpartition(".")[2])
        if kind is None or not is_in_target_modules(name, targets):
            continue
        if kind == OUTPUT and isinstance(module, VocabParallelEmbedding | VocabParallelEmbeddingWithLoRA):
            if (head := _head(model, name, module)) is not None:
                yield name, head
        elif kind == INPUT and type(module) is VocabParallelEmbedding:
            embedding = GroupedEmbedding(module)
            replace_submodule(model, name, embedding)
            yield name, embedding


def _head(model: nn.Module, name: str, module: Any) -> GroupedLogitsProcessor | None:
    """The logits processor beside the head `module`; None if LoRA cannot be added to it."""
    parent = name.rpartition(".")[0]
    place = f"{parent}.logits_processor" if parent else "logits_processor"
    processor = getattr(model.get_submodule(parent), "logits_processor", None)
    weight = getattr(module, "weight", None)
    if type(processor) is not LogitsProcessor or weight is None or not weight.is_floating_point():
        return None
    layer = GroupedLogitsProcessor(
        processor, module.embedding_dim, weight.dtype, weight.device, module.get_sharded_to_full_mapping()
    )
    layer.create_lora_weights()
    layer.width, layer.bias = module.num_embeddings_padded, getattr(module, "bias", None)
    replace_submodule(model, place, layer)
    return layer
