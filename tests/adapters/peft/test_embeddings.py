"""LoRA of the input embedding and of the output head: read and written as PEFT does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from lora_compose.adapters.errors import AdapterRejected
from lora_compose.adapters.peft.checkpoint import Lora, LoraModule, open_adapter, write_adapter
from lora_compose.adapters.peft.tensor_names import base_weight_of, factor_names, parse_name
from tests.adapters.tiny_llama import dense_logits, logits, peft_logits, save_adapter, tiny_llama

# PEFT warns that it saves the base's own weights too, about tied weights, and about patterns without effect.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft", "ignore::RuntimeWarning:peft")

TARGETS = {
    "head": ["lm_head"],
    "embedding": ["embed_tokens"],
    "everything": ["q_proj", "embed_tokens", "lm_head"],
}


def tied_llama() -> Any:
    config = tiny_llama().config
    config.tie_word_embeddings = True
    torch.manual_seed(0)
    return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, {"rank_pattern": {"embed_tokens": 2}}])
def test_the_deltas_are_those_that_peft_applies(
    tmp_path: Path, targets: list[str], settings: dict[str, Any]
) -> None:
    opened = open_adapter(save_adapter(tmp_path / "a", seed=1, target_modules=targets, **settings))
    deltas = {name: module.delta() for name, module in opened.modules.items()}
    assert {delta.shape for name, delta in deltas.items() if "layers" not in name} == {(64, 32)}
    torch.testing.assert_close(dense_logits(deltas), peft_logits(tmp_path / "a"), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
def test_peft_loads_what_is_written_and_it_answers_the_same(tmp_path: Path, targets: list[str]) -> None:
    saved = save_adapter(tmp_path / "a", seed=1, target_modules=targets, lora_alpha=5)
    write_adapter(open_adapter(saved), tmp_path / "b", "base")
    torch.testing.assert_close(peft_logits(tmp_path / "b"), peft_logits(saved), atol=1e-5, rtol=1e-5)
    write_adapter(open_adapter(tmp_path / "b"), tmp_path / "c", "base")
    tensors = [load_file(tmp_path / name / "adapter_model.safetensors") for name in "bc"]
    assert tensors[0].keys() == tensors[1].keys()
    assert not any("base_layer" in name for name in tensors[0])
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])


def test_on_a_tied_base_each_end_keeps_to_itself(tmp_path: Path) -> None:
    config = LoraConfig(task_type="CAUSAL_LM", target_modules=["embed_tokens"], init_lora_weights=False)
    get_peft_model(tied_llama(), config).save_pretrained(str(tmp_path / "a"))
    opened = open_adapter(tmp_path / "a")
    assert list(opened.modules) == ["model.embed_tokens"]
    with torch.no_grad():
        untied = tied_llama()
        untied.lm_head.weight = torch.nn.Parameter(untied.lm_head.weight.clone())
        untied.model.embed_tokens.weight += opened.modules["model.embed_tokens"].delta()
    theirs = logits(PeftModel.from_pretrained(tied_llama(), str(tmp_path / "a")))
    torch.testing.assert_close(logits(untied), theirs, atol=1e-5, rtol=1e-5)


def test_with_ensure_weight_tying_peft_writes_both_ends_with_the_same_delta(tmp_path: Path) -> None:
    config = LoraConfig(
        task_type="CAUSAL_LM",
        target_modules=["embed_tokens"],
        ensure_weight_tying=True,
        init_lora_weights=False,
    )
    get_peft_model(tied_llama(), config).save_pretrained(str(tmp_path / "a"))
    modules = open_adapter(tmp_path / "a").modules
    assert modules.keys() == {"model.embed_tokens", "lm_head"}
    assert torch.equal(modules["model.embed_tokens"].delta(), modules["lm_head"].delta())


def test_an_embedding_beside_biases_is_not_written(tmp_path: Path) -> None:
    embedding = LoraModule(torch.ones(2, 3), torch.ones(5, 2), 1.0, embedding=True)
    biased = LoraModule(torch.ones(2, 3), torch.ones(5, 2), 1.0, bias=torch.ones(5))
    with pytest.raises(AdapterRejected) as refusal:
        write_adapter(Lora({"embed_tokens": embedding, "lm_head": biased}), tmp_path / "a", "base")
    assert refusal.value.code == "unsupported_feature"
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("embedding", [True, False])
def test_the_names_that_are_written_are_the_names_that_are_read(embedding: bool) -> None:
    for name, part in zip(factor_names("model.x", embedding), "AB", strict=True):
        assert parse_name(name) == ("model.x", part, embedding, None)
        assert base_weight_of(name) is None


@pytest.mark.parametrize(
    ("tensor", "module"),
    [
        ("base_model.model.lm_head.base_layer.weight", "lm_head"),
        ("base_model.model.model.embed_tokens.base_layer.weight", "model.embed_tokens"),
        ("base_model.model.model.embed_tokens.weight", "model.embed_tokens"),
        ("base_model.model.lm_head.weight", "lm_head"),
        ("base_model.model.model.norm.weight", None),
        ("base_model.model.lm_head.lora_A.weight", None),
        ("base_model.model.lm_head.modules_to_save.weight", None),
        ("lm_head.weight", None),
    ],
)
def test_copies_of_the_base_s_weights_are_told_by_their_names(tensor: str, module: str | None) -> None:
    assert base_weight_of(tensor) == module
