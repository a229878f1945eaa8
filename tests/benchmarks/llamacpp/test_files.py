"""llama.cpp's files have exactly our numbers. transformers and gguf read them back."""

import json
from pathlib import Path

import gguf
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.adapters.peft.checkpoint import Lora, LoraModule
from lora_compose.benchmarks.llamacpp.files import write_adapter, write_base
from lora_compose.benchmarks.llamacpp.layouts import Layout

SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 50,
    "head_dim": 16,
}
CONFIGS = {
    "llama": LlamaConfig(**SHAPE, tie_word_embeddings=True, attention_bias=True),
    "qwen2": Qwen2Config(**SHAPE, tie_word_embeddings=False),
    "qwen3": Qwen3Config(**SHAPE, tie_word_embeddings=False),
}


def written(config: PretrainedConfig, directory: Path) -> Path:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for weight in model.parameters():
        torch.nn.init.normal_(weight)
    model.save_pretrained(directory)
    return directory


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_reads_the_same_numbers_from_the_file(name: str, tmp_path: Path) -> None:
    base = written(CONFIGS[name], tmp_path / "base")
    write_base(base, tmp_path / "base.gguf", torch.float32)
    read = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="base.gguf", dtype=torch.float32)
    before, after = AutoModelForCausalLM.from_pretrained(base).state_dict(), read.state_dict()
    biases = {key for key in before if key.endswith("_proj.bias")}
    compared = before.keys() - (biases if name == "llama" else set())  # transformers leaves llama's out
    assert all(torch.equal(before[key], after[key]) for key in compared)


def test_the_rows_of_a_bias_are_in_the_order_of_its_weight(tmp_path: Path) -> None:
    base = written(CONFIGS["llama"], tmp_path / "base")
    layout = Layout.of(base)
    rows = torch.arange(64.0)
    weight = rows[:, None].expand(64, 3)
    name = "model.layers.0.self_attn.q_proj"
    ordered = layout.rows(f"{name}.bias", rows)
    assert ordered[:4].tolist() == [0, 8, 1, 9]  # the halves of the first head take turns
    assert torch.equal(layout.rows(f"{name}.weight", weight)[:, 0], ordered)
    assert layout.rows("model.layers.0.self_attn.v_proj.weight", weight) is weight


def test_matrices_are_rounded_to_bfloat16_as_torch_rounds_and_vectors_stay(tmp_path: Path) -> None:
    base = written(CONFIGS["qwen3"], tmp_path / "base")
    write_base(base, tmp_path / "base.gguf", torch.bfloat16)
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "base.gguf").tensors}
    right = AutoModelForCausalLM.from_pretrained(base).state_dict()
    matrix, norm = found["blk.1.attn_q.weight"], found["output_norm.weight"]
    bits = torch.from_numpy(matrix.data.copy()).view(torch.bfloat16)
    assert torch.equal(bits, right["model.layers.1.self_attn.q_proj.weight"].bfloat16())
    assert torch.equal(torch.from_numpy(norm.data.copy()), right["model.norm.weight"])


def test_every_token_has_its_number_as_text_and_none_is_special(tmp_path: Path) -> None:
    base = written(CONFIGS["llama"], tmp_path / "base")
    write_base(base, tmp_path / "base.gguf", torch.float32)
    fields = gguf.GGUFReader(tmp_path / "base.gguf").fields
    assert fields["tokenizer.ggml.tokens"].contents() == [f"{number}," for number in range(50)]
    assert not [name for name in fields if name.endswith("_token_id")]


def adapter(scalings: tuple[float, float]) -> Lora:
    names = ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj")
    shapes = ((64, 64), (64, 96))
    torch.manual_seed(1)
    modules = {
        name: LoraModule(torch.randn(4, d_in), torch.randn(d_out, 4), scaling)
        for name, (d_out, d_in), scaling in zip(names, shapes, scalings, strict=True)
    }
    return Lora(modules)


@pytest.mark.parametrize(("scalings", "alpha"), [((2.0, 2.0), 8.0), ((2.0, 0.5), 0.0)])
def test_an_adapter_s_file_has_its_factors_and_its_scaling(
    scalings: tuple[float, float], alpha: float, tmp_path: Path
) -> None:
    layout, lora = Layout.of(written(CONFIGS["llama"], tmp_path / "base")), adapter(scalings)
    write_adapter(lora, layout, tmp_path / "a.gguf", torch.float32)
    reader = gguf.GGUFReader(tmp_path / "a.gguf")
    found = {tensor.name: torch.from_numpy(tensor.data.copy()) for tensor in reader.tensors}
    assert reader.fields["adapter.lora.alpha"].contents() == alpha
    for name, place in zip(lora.modules, ("blk.0.attn_q", "blk.1.ffn_down"), strict=True):
        module = lora.modules[name]
        in_file = 1.0 if alpha else module.scaling
        assert torch.equal(found[f"{place}.weight.lora_a"], module.lora_A)
        assert torch.equal(found[f"{place}.weight.lora_b"], layout.rows(name, module.lora_B * in_file))


def refusal(base: Path) -> str:
    with pytest.raises(LoraComposeError) as refused:
        Layout.of(base)
    assert refused.value.code == "llamacpp_unavailable"
    return refused.value.message


def test_another_architecture_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    GPT2Config(architectures=["GPT2LMHeadModel"]).save_pretrained(tmp_path)
    assert "GPT2LMHeadModel" in refusal(tmp_path)
    assert "LlamaForCausalLM" in refusal(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}},
        {"rope_scaling": {"type": "linear", "factor": 2}, "rope_parameters": None},
        {"quantization_config": {"quant_method": "awq"}},
    ],
)
def test_a_base_that_the_file_cannot_describe_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    config = {**CONFIGS["llama"].to_dict(), "architectures": ["LlamaForCausalLM"]}
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}, default=str))
    assert "Leave them out of --arms" in refusal(tmp_path)


def test_an_adapter_that_llama_cpp_cannot_compute_is_refused(tmp_path: Path) -> None:
    layout = Layout.of(written(CONFIGS["llama"], tmp_path / "base"))
    module = LoraModule(torch.ones(4, 64), torch.ones(64, 4), 1.0, magnitude=torch.ones(64))
    lora = Lora({"model.layers.0.self_attn.q_proj": module})
    with pytest.raises(LoraComposeError, match="DoRA"):
        write_adapter(lora, layout, tmp_path / "a.gguf", torch.float32)
