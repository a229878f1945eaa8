import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_compose.adapters.admission.admit import AdmissionLimits, admit
from lora_compose.adapters.admission.base_model import BaseShapes
from lora_compose.adapters.admission.foreign_tensors import what_tensor_is
from lora_compose.adapters.admission.recognition import what_name_is
from lora_compose.adapters.errors import AdapterRejected
from tests.adapters.adapter_files import factors, write_adapter, write_base

LIMITS = AdmissionLimits(max_lora_rank=16, dtype=torch.float32)
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>404</title></head></html>"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseShapes:
    return BaseShapes.of(write_base(tmp_path_factory.mktemp("base")), "tiny")


def refused(directory: Path, base: BaseShapes) -> AdapterRejected:
    with pytest.raises(AdapterRejected) as caught:
        admit(directory, base, LIMITS)
    assert str(directory) not in caught.value.message
    return caught.value


def with_files(directory: Path, *names: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(b"x")
    return directory


def test_adapters_in_subdirectories_are_named_in_order(tmp_path: Path, base: BaseShapes) -> None:
    for number in range(1, 13):
        with_files(tmp_path, f"checkpoint-{number}/{CONFIG}")
    message = refused(tmp_path, base).message
    assert "checkpoint-1, checkpoint-2, checkpoint-3, " in message
    assert "checkpoint-8 and 4 more" in message


def test_named_adapters_and_the_cache_of_the_hub_are_found(tmp_path: Path, base: BaseShapes) -> None:
    with_files(
        tmp_path, f"sql/{CONFIG}", "README.md", f"models--o--r/snapshots/f00d/{CONFIG}", f".git/x/{CONFIG}2"
    )
    (tmp_path / "linked").symlink_to("sql")
    refusal = refused(tmp_path, base)
    assert refusal.code == "missing_config"
    assert "linked, models--o--r/snapshots/f00d, sql. Register one" in refusal.message


def test_a_directory_that_is_its_own_subdirectory_ends_the_search(tmp_path: Path, base: BaseShapes) -> None:
    (tmp_path / "again").symlink_to(".")
    assert refused(tmp_path, base).code == "missing_config"


@pytest.mark.parametrize(
    ("files", "code", "words"),
    [
        ([], "missing_config", "directory is empty"),
        (["README.md"], "missing_config", "has no file adapter_config.json. Add it"),
        (["model.safetensors", "config.json"], "missing_config", "belongs to a whole model"),
        (["model-00001-of-00002.safetensors", CONFIG], "missing_weights", "belongs to a whole model"),
        (["pytorch_model.bin", "config.json"], "missing_config", "belongs to a whole model"),
        ([CONFIG, "adapters.safetensors"], "missing_weights", "is an adapter of MLX"),
        ([CONFIG, "0000100_adapters.safetensors"], "missing_weights", "is an adapter of MLX"),
        ([CONFIG, "adapter_model.bin"], "pickle_refused", "lora-compose adapters convert"),
        (["adapter_model.bin"], "pickle_refused", "lora-compose adapters convert"),
        ([CONFIG, "adapter_model-00001-of-00002.safetensors"], "missing_weights", "saved in several files"),
        ([CONFIG, "adapter_model.safetensors.index.json"], "missing_weights", "saved in several files"),
        ([CONFIG, "adapter_model.safetensors.incomplete"], "missing_weights", "incomplete download"),
        (["sql-lora-f16.gguf"], "missing_config", "GGUF"),
        (["pytorch_lora_weights.safetensors"], "missing_config", "image model"),
        (["style.safetensors"], "missing_config", f"is not named {WEIGHTS}"),
        ([CONFIG, "lora.safetensors"], "missing_weights", f"is not named {WEIGHTS}"),
        (["sql.zip"], "missing_config", "is an archive"),
        (["sql.tar.gz"], "missing_config", "is an archive"),
        (["adapter_0.pt"], "missing_config", "torchtune"),
        (["zero_to_fp32.py", "latest"], "missing_config", "distributed checkpoint"),
        ([WEIGHTS], "missing_config", "has no file adapter_config.json. Add it"),
    ],
)  # fmt: skip
def test_what_is_there_instead_is_named(
    tmp_path: Path, base: BaseShapes, files: list[str], code: str, words: str
) -> None:
    refusal = refused(with_files(tmp_path / "a", *files), base)
    assert refusal.code == code
    assert words in refusal.message


@pytest.mark.parametrize("name", [CONFIG, "README.md", ".gitattributes", "tokenizer.json", "optimizer.pt"])
def test_ordinary_files_have_no_words(name: str) -> None:
    assert what_name_is(name) is None


def test_files_beside_an_adapter_are_ignored(tmp_path: Path, base: BaseShapes) -> None:
    write_adapter(tmp_path)
    with_files(
        tmp_path, ".gitattributes", "adapters.safetensors", f"checkpoint-3/{CONFIG}", "x.gguf", "a.zip"
    )
    assert admit(tmp_path, base, LIMITS).rank == 4


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"), (LFS, "Git LFS pointer"), (PAGE, "web page"), (b"\n <html>", "web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied", "web page"),
        (b"PK\x03\x04" + bytes(60), "zip archive"),
        (b"\x80\x02}q", "is a pickle"), (b"GGUF\x03\0\0\0" + bytes(40), "GGUF"),
        (b"\x1f\x8b\x08\0" + bytes(40), "Unpack"),
        (bytes(4096), "begins with zeros"), (b'{"error": "Entry not found"}', "is JSON"),
        (b"Invalid username or password.", "is a text"), (b"Entry not found", "is a text"),
        (b"\x93NUMPY\x01\0v\0", "NumPy"), (bytes(257).replace(b"\0", b"a") + b"ustar", "tar archive"),
        (b"/annex/objects/SHA256E-s12--ab", "git-annex"),
    ],
)  # fmt: skip
def test_content_that_is_no_safetensors_is_named(
    tmp_path: Path, base: BaseShapes, content: bytes, words: str
) -> None:
    (write_adapter(tmp_path) / WEIGHTS).write_bytes(content)
    refusal = refused(tmp_path, base)
    assert (refusal.code, refusal.param) == ("corrupt_weights", WEIGHTS)
    assert words in refusal.message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"), (b" \n", "is empty"), (LFS, "Git LFS pointer"), (PAGE, "web page"),
        (b"<<<<<<< HEAD\n{}", "merge conflict"), (b"{", "not valid JSON"), (b"r: 8\n", "not valid JSON"),
    ],
)  # fmt: skip
def test_a_config_that_is_no_json_is_named(
    tmp_path: Path, base: BaseShapes, content: bytes, words: str
) -> None:
    (write_adapter(tmp_path) / CONFIG).write_bytes(content)
    refusal = refused(tmp_path, base)
    assert refusal.code == "bad_adapter_config"
    assert words in refusal.message


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"fine_tune_type": "lora", "lora_parameters": {"rank": 8}}, "MLX"),
        ({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}, "whole model"),
        ({"rank": 16, "alpha": 32}, "another tool"),
    ],
)
def test_the_config_of_another_tool_is_named(
    tmp_path: Path, base: BaseShapes, config: dict[str, Any], words: str
) -> None:
    (write_adapter(tmp_path) / CONFIG).write_text(json.dumps(config))
    assert words in refused(tmp_path, base).message


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", "image models"),
        ("unet.down_blocks.0.attn1.to_q.lora_A.weight", "image model"),
        ("model.layers.0.self_attn.q_proj.lora_a", "MLX"),
        ("blk.0.attn_q.weight.lora_a", "MLX"),
        ("blk.0.attn_q.weight", "llama.cpp"),
        ("base_model.model.model.layers.0.self_attn.q_proj.hada_w1_a", "adapters convert"),
        ("base_model.model.model.layers.0.self_attn.k_proj.ia3_l", "(IA)3"),
        ("prompt_embeddings", "virtual tokens"),
        ("base_model.model._orig_mod.model.layers.0.self_attn.q_proj.lora_A.weight", "torch.compile"),
        ("module.base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", "wrapper"),
        ("model.layers.0.self_attn.q_proj.lora_A.default.weight", "lacks the prefix"),
        ("base_model.model.base_model.model.model.layers.0.q_proj.lora_A.weight", "prefix twice"),
        ("model.layers.0.self_attn.q_proj.lora_A.weight", "lacks the prefix"),
        ("model.layers.0.self_attn.q_proj.weight", "weight of the model itself"),
        ("hello", "is not a LoRA factor"),
    ],
)
def test_a_tensor_of_another_tool_is_named(tensor: str, words: str) -> None:
    assert words in what_tensor_is(tensor)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("model.layers", "layers", "without its head"),
        ("model.layers", "vision.model.layers", "contains this one"),
    ],
)
def test_a_module_with_another_prefix_is_named(
    tmp_path: Path, base: BaseShapes, old: str, new: str, words: str
) -> None:
    tensors = {name.replace(old, new): t for name, t in factors().items()}
    refusal = refused(write_adapter(tmp_path, tensors), base)
    assert refusal.code == "unknown_module"
    assert "The base calls it model.layers.0.mlp.down_proj: " in refusal.message
    assert words in refusal.message
