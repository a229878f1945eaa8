"""Counting from the config gives what transformers builds, parameter for parameter."""

from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from lora_compose.training.planning.architectures import KNOWN, shape_of
from lora_compose.training.planning.models import KNOWN_MODELS, read_shape

TINY: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
LATENT: dict[str, Any] = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
    "q_lora_rank": 8,
    "kv_lora_rank": 6,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 6,
    "n_group": 1,
    "topk_group": 1,
}
SPARSE: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    ("llama", {"head_dim": 16, "num_key_value_heads": None}),
    ("mistral", {"head_dim": 16}),
    ("qwen2", {"tie_word_embeddings": True}),
    ("qwen3", {"head_dim": 16, "attention_bias": True}),
    ("gemma", {"head_dim": 16}),
    ("gemma2", {"head_dim": 16, "attention_bias": True}),
    ("gemma3_text", {"head_dim": 16}),
    ("phi3", {"pad_token_id": 0}),
    ("mixtral", {"num_local_experts": 4}),
    ("qwen3_moe", {**SPARSE, "head_dim": 16}),
    ("qwen3_moe", {**SPARSE, "decoder_sparse_step": 2, "attention_bias": True}),
    ("qwen3_moe", {**SPARSE, "mlp_only_layers": [0, 2], "tie_word_embeddings": True}),
    ("deepseek_v3", LATENT),
    ("deepseek_v3", {**LATENT, "q_lora_rank": None, "attention_bias": True}),
    ("gpt2", {}),
    ("gpt2", {"n_inner": 100, "n_positions": 70, "tie_word_embeddings": False}),
]


def built(config: Any) -> Any:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize(("model_type", "others"), VARIANTS)
def test_every_parameter_is_counted_once(model_type: str, others: dict[str, Any]) -> None:
    config = CONFIG_MAPPING[model_type](**(TINY | others))
    assert shape_of(config).parameters == sum(weight.numel() for weight in built(config).parameters())


@pytest.mark.parametrize(("model_type", "others"), VARIANTS)
def test_the_linear_layers_are_those_that_bitsandbytes_sees(model_type: str, others: dict[str, Any]) -> None:
    config = CONFIG_MAPPING[model_type](**(TINY | others))
    model = built(config)
    head = model.get_output_embeddings()
    kinds = ("Linear", "Conv1D")
    seen = sorted(
        tuple(module.weight.shape) if type(module).__name__ == "Linear" else tuple(module.weight.shape[::-1])
        for module in model.modules()
        if type(module).__name__ in kinds and module is not head
    )
    shape = shape_of(config)
    modules = [linear for block in shape.blocks for linear in block.modules * block.count]
    assert seen == sorted((linear.d_out, linear.d_in) for linear in modules)


def test_every_known_type_has_a_variant() -> None:
    assert {model_type for model_type, _ in VARIANTS} == set(KNOWN)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("llama-3.2-1b", 1_235_814_400),
        ("llama-3-8b", 8_030_261_248),
        ("llama-3-70b", 70_553_706_496),
        ("qwen2.5-0.5b", 494_032_768),
        ("qwen2.5-7b", 7_615_616_512),
        ("qwen2.5-72b", 72_706_203_648),
        ("mistral-7b", 7_241_732_096),
        ("gemma-2-9b", 9_241_705_984),
        ("gemma-3-1b", 999_885_952),
        ("phi-3-mini", 3_821_079_552),
        ("mixtral-8x7b", 46_702_792_704),
        ("qwen3-30b-a3b", 30_532_122_624),
    ],
)
def test_a_known_model_has_as_many_parameters_as_its_repository_says(name: str, published: int) -> None:
    assert set(KNOWN_MODELS) >= {name}
    assert read_shape(name).parameters == published
