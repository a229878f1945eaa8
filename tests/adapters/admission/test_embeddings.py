"""Admission of adapters of the input embedding and the output head, as PEFT saves them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from lora_compose.adapters.admission.admit import Admission, AdmissionLimits, admit
from lora_compose.adapters.admission.base_model import BaseShapes
from lora_compose.adapters.errors import AdapterRejected

# PEFT warns that it saves the base's own weights too, about tied weights, and about patterns without effect.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft", "ignore::RuntimeWarning:peft")

HEAD, EMBEDDING = "lm_head", "model.embed_tokens"
HEAD_COPY = "base_model.model.lm_head.base_layer.weight"
EMBEDDING_COPY = "base_model.model.model.embed_tokens.base_layer.weight"
Tensors = dict[str, torch.Tensor]


class Case:
    """A tiny base on disk, and adapters that PEFT saved for it."""

    def __init__(self, home: Path, tied: bool) -> None:
        sizes = {"vocab_size": 70, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**sizes, **heads, tie_word_embeddings=tied))
        model.save_pretrained(home / "base")
        self.home = home
        self.base = BaseShapes.of(home / "base", "tiny")

    def save(self, *targets: str, **settings: Any) -> Path:
        model = LlamaForCausalLM.from_pretrained(self.home / "base")
        settings = {"init_lora_weights": False, "r": 4} | settings
        config = LoraConfig(task_type="CAUSAL_LM", target_modules=list(targets), **settings)
        get_peft_model(model, config).save_pretrained(str(self.home / "adapter"))
        return self.home / "adapter"

    def admit(self, embeddings: frozenset[str] | None = None) -> Admission:
        limits = AdmissionLimits(max_lora_rank=16, dtype=torch.float32, embeddings=embeddings)
        return admit(self.home / "adapter", self.base, limits)

    def refusal(self, embeddings: frozenset[str] | None = None) -> AdapterRejected:
        with pytest.raises(AdapterRejected) as refused:
            self.admit(embeddings)
        return refused.value

    def change(self, change: Callable[[Tensors], object]) -> None:
        path = self.home / "adapter" / "adapter_model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)

    def configure(self, **fields: object) -> None:
        path = self.home / "adapter" / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.fixture
def tied(tmp_path: Path) -> Case:
    return Case(tmp_path, tied=True)


@pytest.fixture
def untied(tmp_path: Path) -> Case:
    return Case(tmp_path, tied=False)


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    return Case(tmp_path, tied=request.param)


def test_the_shapes_of_both_ends(case: Case) -> None:
    assert case.base.heads == {HEAD: (70, 32)}
    assert case.base.embeddings == {EMBEDDING: (32, 70)}


@pytest.mark.parametrize("targets", [["lm_head"], ["embed_tokens"], ["q_proj", "lm_head", "embed_tokens"]])
def test_what_peft_saves_is_admitted(case: Case, targets: list[str]) -> None:
    case.save(*targets)
    admission = case.admit()
    assert admission.coverage["modules"] == sorted(targets)
    assert admission.coverage["linears"] == targets.count("q_proj")
    assert admission.parameters == 4 * sum(64 if name == "q_proj" else 70 + 32 for name in targets)
    assert [warning for warning in admission.warnings if "other_base_name" not in warning] == []


def test_a_config_that_names_all_linear_does_not_mean_the_head(untied: Case) -> None:
    untied.save("q_proj", "lm_head")
    untied.configure(target_modules="all-linear")
    refusal = untied.refusal()
    assert (refusal.code, refusal.param) == ("unknown_module", "target_modules")
    assert HEAD in refusal.message


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_copy_of_the_base_s_weights_may_be_rounded(case: Case, dtype: torch.dtype) -> None:
    case.save("lm_head", "embed_tokens")
    for rounded in (lambda t: t.to(dtype), lambda t: t.to(dtype).float()):
        case.change(
            lambda tensors, rounded=rounded: tensors.update(  # type: ignore[misc]
                {name: rounded(tensors[name]) for name in (HEAD_COPY, EMBEDDING_COPY)}
            )
        )
        case.admit()


@pytest.mark.parametrize("copy", [HEAD_COPY, EMBEDDING_COPY])
def test_other_values_than_the_base_s_are_refused_because_peft_would_use_them(case: Case, copy: str) -> None:
    case.save("lm_head", "embed_tokens")
    case.change(lambda tensors: tensors[copy][-1, -1].add_(1e-3))
    refusal = case.refusal()
    assert (refusal.code, refusal.param) == ("wrong_base", copy)
    assert "other values" in refusal.message


def test_a_resized_vocabulary_is_refused_with_both_shapes(untied: Case) -> None:
    untied.save("lm_head")
    untied.change(lambda tensors: tensors.update({HEAD_COPY: torch.ones(72, 32)}))
    refusal = untied.refusal()
    assert refusal.code == "wrong_base"
    assert "[72, 32]" in refusal.message
    assert "[70, 32]" in refusal.message


def test_an_adapter_of_a_resized_vocabulary_is_refused_without_a_copy_too(untied: Case) -> None:
    untied.save("embed_tokens")
    name = "base_model.model.model.embed_tokens.lora_embedding_A"
    untied.change(lambda tensors: (tensors.pop(EMBEDDING_COPY), tensors.update({name: torch.ones(4, 72)})))
    refusal = untied.refusal()
    assert (refusal.code, refusal.param) == ("wrong_base", name)


def test_a_copy_is_not_needed(case: Case) -> None:
    case.save("lm_head", "embed_tokens")
    case.change(lambda tensors: (tensors.pop(HEAD_COPY), tensors.pop(EMBEDDING_COPY)))
    case.admit()


def test_a_copy_that_cannot_be_compared_is_admitted_with_a_warning(untied: Case) -> None:
    untied.save("lm_head")
    save_file({"other.weight": torch.ones(1)}, untied.home / "base" / "model.safetensors")
    assert any("unchecked_copy" in warning for warning in untied.admit().warnings)


def test_embeddings_that_were_saved_without_lora_are_compared_too(untied: Case) -> None:
    """`save_pretrained(save_embedding_layers=True)` writes them under their plain names."""
    untied.save("q_proj")
    plain = LlamaForCausalLM.from_pretrained(untied.home / "base").lm_head.weight.detach().clone()
    untied.change(lambda tensors: tensors.update({"base_model.model.lm_head.weight": plain}))
    untied.admit()
    untied.change(lambda tensors: tensors.update({"base_model.model.lm_head.weight": plain + 1}))
    assert untied.refusal().code == "wrong_base"


def test_tied_factors_are_admitted_though_the_config_names_only_the_embedding(tied: Case) -> None:
    tied.save("q_proj", "embed_tokens", ensure_weight_tying=True)
    assert {"lm_head", "embed_tokens"} <= set(tied.admit().coverage["modules"])


def test_tied_factors_must_be_complete_and_equal(tied: Case) -> None:
    tied.save("embed_tokens", ensure_weight_tying=True)
    tied.change(lambda tensors: tensors["base_model.model.lm_head.lora_A.weight"][0].add_(1))
    assert (tied.refusal().code, tied.refusal().param) == ("corrupt_weights", "ensure_weight_tying")
    names = ("base_model.model.lm_head.lora_A.weight", "base_model.model.lm_head.lora_B.weight")
    tied.change(lambda tensors: [tensors.pop(name) for name in names])
    assert tied.refusal().code == "corrupt_weights"


def test_on_an_untied_base_the_head_must_be_named(tmp_path: Path) -> None:
    tied, untied = Case(tmp_path / "tied", tied=True), Case(tmp_path / "untied", tied=False)
    adapter = tied.save("embed_tokens", ensure_weight_tying=True)
    with pytest.raises(AdapterRejected) as refused:
        admit(adapter, untied.base, AdmissionLimits(max_lora_rank=16, dtype=torch.float32))
    assert (refused.value.code, refused.value.param) == ("unknown_module", "target_modules")


@pytest.mark.parametrize("served", [frozenset[str](), frozenset({"embed_tokens"})])
def test_an_engine_that_does_not_adapt_the_head_refuses_it(case: Case, served: frozenset[str]) -> None:
    case.save("q_proj", "lm_head")
    refusal = case.refusal(embeddings=served)
    assert (refusal.code, refusal.param) == ("unsupported_feature", "target_modules")
    assert "embedding_modules" in refusal.message
    case.admit(embeddings=frozenset({"lm_head"}))


@pytest.mark.parametrize(
    ("targets", "field", "value"),
    [
        (["q_proj"], "modules_to_save", ["lm_head"]),
        (["q_proj"], "trainable_token_indices", [3, 4]),
        (["q_proj", "embed_tokens"], "use_dora", True),
    ],
)
def test_what_is_not_a_low_rank_change_of_an_end_is_refused_by_its_field(
    untied: Case, targets: list[str], field: str, value: object
) -> None:
    untied.save(*targets, **{field: value})
    refusal = untied.refusal()
    assert refusal.code == "unsupported_feature"
    assert field in refusal.message


def test_factors_of_the_other_kind_are_refused(untied: Case) -> None:
    untied.save("embed_tokens")
    old, new = "model.embed_tokens.lora_embedding_A", "lm_head.lora_embedding_A"
    untied.change(
        lambda tensors: tensors.update({
            f"base_model.model.{new}": tensors.pop(f"base_model.model.{old}"),
        })
    )
    refusal = untied.refusal()
    assert refusal.code == "unknown_module"
    assert "is a factor of an embedding, but lm_head" in refusal.message
