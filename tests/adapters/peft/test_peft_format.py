"""PEFT directories are read by PEFT's rules, written so that PEFT agrees, and refused if not plain LoRA."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file, save_file

from lora_compose.adapters.errors import AdapterRejected
from lora_compose.adapters.peft.checkpoint import Lora, LoraModule, open_adapter, write_adapter
from tests.adapters.tiny_llama import dense_logits, peft_deltas, peft_logits, save_adapter, tiny_llama
from tests.adapters.written_adapters import SHAPES, write_peft

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True, "r": 9},
    "rank_pattern": {"rank_pattern": {"q_proj": 2, r"layers\.1\..*v_proj": 7}},
    "alpha_pattern": {"alpha_pattern": {"^model.layers.0.mlp.down_proj": 3, "v_proj": 1}},
    "both": {"use_rslora": True, "rank_pattern": {"1.self_attn.q_proj": 5}, "alpha_pattern": {"q_proj": 30}},
}


def lora(ranks: dict[str, int], scaling: float = 1.0) -> Lora:
    draw = torch.Generator().manual_seed(0)
    modules = {}
    for name, rank in ranks.items():
        A, B = torch.randn(rank, 5, generator=draw), torch.randn(4, rank, generator=draw)
        modules[name] = LoraModule(A, B, scaling)
    return Lora(modules)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
def test_an_opened_adapter_has_the_deltas_that_peft_gives_it(tmp_path: Path, config: dict[str, Any]) -> None:
    directory = save_adapter(tmp_path / "a", seed=1, **config)
    theirs = peft_deltas(PeftModel.from_pretrained(tiny_llama(), str(directory)), "default")
    ours = open_adapter(directory)
    assert ours.modules.keys() == theirs.keys()
    for name, module in ours.modules.items():
        torch.testing.assert_close(module.delta(), theirs[name])


@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
def test_a_written_adapter_is_loaded_by_peft_with_the_logits_of_its_deltas(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    directory = save_adapter(tmp_path / "a", seed=1, **config)
    model = PeftModel.from_pretrained(tiny_llama(), str(directory))
    write_adapter(open_adapter(directory), tmp_path / "again", "some/base")
    expected = dense_logits(peft_deltas(model, "default"))
    torch.testing.assert_close(peft_logits(tmp_path / "again"), expected, rtol=1e-4, atol=1e-5)
    assert (expected - dense_logits({})).abs().max() > 0.1


def test_an_adapter_of_lower_dtype_is_read_as_it_is_and_written_in_float32(tmp_path: Path) -> None:
    directory = write_peft(tmp_path / "a", seed=1).directory
    weights = directory / "adapter_model.safetensors"
    save_file({key: tensor.bfloat16() for key, tensor in load_file(weights).items()}, weights)
    opened = open_adapter(directory)
    write_adapter(opened, tmp_path / "b", "base")
    assert {module.lora_A.dtype for module in opened.modules.values()} == {torch.bfloat16}
    assert {tensor.dtype for tensor in load_file(tmp_path / "b" / weights.name).values()} == {torch.float32}
    for name, module in open_adapter(tmp_path / "b").modules.items():
        torch.testing.assert_close(module.delta(), opened.modules[name].delta())


@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
def test_save_load_save_is_byte_equal(tmp_path: Path, config: dict[str, Any]) -> None:
    write_adapter(open_adapter(save_adapter(tmp_path / "a", seed=1, **config)), tmp_path / "b", "base")
    write_adapter(open_adapter(tmp_path / "b"), tmp_path / "c", "base")
    assert contents(tmp_path / "b") == contents(tmp_path / "c")


def test_the_order_of_modules_does_not_change_a_byte(tmp_path: Path) -> None:
    one = lora({"model.a_proj": 2, "model.b_proj": 3, "other.b_proj": 4}, scaling=0.3)
    write_adapter(one, tmp_path / "b", "base")
    write_adapter(Lora(dict(reversed(one.modules.items()))), tmp_path / "c", "base")
    assert contents(tmp_path / "b") == contents(tmp_path / "c")


@pytest.mark.parametrize(
    "ranks",
    [
        {"x.0.q_proj": 2, "x.1.q_proj": 2, "x.0.v_proj": 4},
        {"x.0.q_proj": 2, "x.1.q_proj": 4, "x.10.q_proj": 3, "10.q_proj": 1},
        {"x.0.q_proj": 2, "y.x.0.q_proj": 4},
        {"x.0.weird+name": 2, "x.1.weird+name": 4, "x.1.weirdname": 3},
        {"a.b": 1, "a_b": 2, "x.a_b": 3, "x.a.b": 4},
    ],
)
def test_mixed_ranks_are_told_apart_by_peft(tmp_path: Path, ranks: dict[str, int]) -> None:
    write_adapter(lora(ranks), tmp_path / "a", "base")
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    for name, rank in ranks.items():
        key = get_pattern_key(list(config["rank_pattern"]), name)
        assert config["rank_pattern"].get(key, config["r"]) == rank
        assert config["alpha_pattern"].get(key, config["lora_alpha"]) == rank


def test_pattern_keys_stay_few_where_a_suffix_says_it_all(tmp_path: Path) -> None:
    ranks = {
        f"x.{layer}.{kind}": rank for layer in range(99) for kind, rank in (("q_proj", 2), ("v_proj", 4))
    }
    write_adapter(lora(ranks), tmp_path / "a", "base")
    assert json.loads((tmp_path / "a" / "adapter_config.json").read_text())["rank_pattern"] == {"q_proj": 2}


def test_a_thousand_keys_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    ranks = {
        f"model.layers.{layer}.{kind}": 1 + layer % 5 for layer in range(300) for kind in ("q", "k", "v", "o")
    }
    write_adapter(lora(ranks), tmp_path / "a", "base")
    assert {name: module.rank for name, module in open_adapter(tmp_path / "a").modules.items()} == ranks


@pytest.mark.parametrize(
    ("config", "code", "param"),
    [
        ({"use_dora": True}, "corrupt_weights", "use_dora"),
        ({"init_lora_weights": "pissa"}, "unsupported_feature", "init_lora_weights"),
        ({"lora_alpha": "5"}, "bad_alpha", "lora_alpha"),
        ({"r": 0}, "bad_rank", "r"),
        ({"r": 4}, "rank_mismatch", "r"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_mismatch", "r"),
    ],
    ids=str,
)
def test_a_config_that_does_not_hold_is_refused(
    tmp_path: Path, config: dict[str, Any], code: str, param: str
) -> None:
    written = write_peft(tmp_path / "a", seed=1)
    path = written.directory / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    with pytest.raises(AdapterRejected) as refusal:
        open_adapter(written.directory)
    assert (refusal.value.code, refusal.value.param) == (code, param)


NAME = next(iter(SHAPES))
A, B = f"base_model.model.{NAME}.lora_A.weight", f"base_model.model.{NAME}.lora_B.weight"
M = f"base_model.model.{NAME}.lora_magnitude_vector"


@pytest.mark.parametrize(
    ("tensors", "code"),
    [
        ({}, "corrupt_weights"),
        ({A: torch.ones(3, 10)}, "corrupt_weights"),
        ({A: torch.ones(3, 10), B: torch.ones(12)}, "corrupt_weights"),
        ({A: torch.ones(3, 10), B: torch.ones(12, 3, dtype=torch.int8)}, "corrupt_weights"),
        ({A: torch.ones(3, 10), B: torch.ones(12, 2)}, "rank_mismatch"),
        ({"hello": torch.ones(3, 10)}, "unknown_module"),
        ({"base_model.model.x.lora_embedding_A": torch.ones(3, 10)}, "corrupt_weights"),
        ({"base_model.model.x.lora_magnitude_vector": torch.ones(3)}, "corrupt_weights"),
        ({A: torch.ones(3, 10), B: torch.ones(12, 3), M: torch.ones(12)}, "corrupt_weights"),
    ],
)
def test_weights_that_are_not_pairs_of_factors_are_refused(
    tmp_path: Path, tensors: dict[str, torch.Tensor], code: str
) -> None:
    written = write_peft(tmp_path / "a", seed=1)
    save_file(tensors, written.directory / "adapter_model.safetensors")
    with pytest.raises(AdapterRejected) as refusal:
        open_adapter(written.directory)
    assert refusal.value.code == code


@pytest.mark.parametrize(
    ("file", "content", "code"),
    [
        ("adapter_config.json", None, "missing_config"),
        ("adapter_config.json", b"[]", "bad_adapter_config"),
        ("adapter_model.safetensors", None, "missing_weights"),
        ("adapter_model.safetensors", b"", "corrupt_weights"),
        ("adapter_model.safetensors", b"\xff" * 64, "corrupt_weights"),
    ],
)
def test_a_broken_or_missing_file_is_refused(
    tmp_path: Path, file: str, content: bytes | None, code: str
) -> None:
    path = write_peft(tmp_path / "a", seed=1).directory / file
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(AdapterRejected) as refusal:
        open_adapter(path.parent)
    assert refusal.value.code == code
