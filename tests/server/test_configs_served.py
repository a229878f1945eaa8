"""Adapters with unusual configs answer on the real engine as they do in PEFT."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from lora_compose.training.testbed.paths import ADAPTERS_DIR, BASE_DIR
from tests.campaigns.configs.trial import Trial
from tests.campaigns.configs.variants import PLAIN

TOKENS = [5, 17, 40, 2, 9, 33, 21, 8, 60, 4]
CHANGES: dict[str, dict[str, Any]] = {
    "negative alpha": {"lora_alpha": -16},
    "no r and no alpha": {"r": None, "lora_alpha": None},
    "default targets": {"target_modules": None},
    "patterns": {"rank_pattern": {".*(?:q|k)_proj": 4}, "alpha_pattern": {r"^(?!.*mlp).*_proj": 3}},
    "layers": {"layers_pattern": "layers", "layers_to_transform": [0, 2]},
    "another trainer": {"task_type": None, "base_model_name_or_path": None},
}


@pytest.fixture(scope="module")
def trial() -> Trial:
    return Trial(BASE_DIR, "testbed-base")


def in_peft(directory: Path) -> torch.Tensor:
    """Log probabilities of the next token after TOKENS."""
    base = AutoModelForCausalLM.from_pretrained(BASE_DIR, dtype=torch.float32)
    with torch.no_grad():
        model = PeftModel.from_pretrained(base, str(directory)).eval()
        found: torch.Tensor = model(torch.tensor([TOKENS])).logits[0, -1].log_softmax(-1)
    return found


def assert_as_in_peft(http: httpx.Client, directory: Path, name: str) -> None:
    reply = http.post("/v1/adapters", json={"name": name, "path": str(directory)})
    assert reply.status_code == 201, reply.text
    body = {"model": name, "prompt": TOKENS, "max_tokens": 1, "temperature": 0, "logprobs": 5}
    body |= {"return_tokens_as_token_ids": True}
    answer = http.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    (found,) = answer.json()["choices"][0]["logprobs"]["top_logprobs"]
    expected = in_peft(directory)
    assert len(found) >= 5
    for token, logprob in found.items():
        assert logprob == pytest.approx(float(expected[int(token.removeprefix("token_id:"))]), abs=1e-4)
    http.delete(f"/v1/adapters/{name}")


@pytest.mark.parametrize("change", CHANGES)
def test_an_unusual_config(http: httpx.Client, adapter_root: Path, trial: Trial, change: str) -> None:
    config = PLAIN | CHANGES[change]
    if change == "no r and no alpha":
        config = {field: value for field, value in config.items() if field not in CHANGES[change]}
    name = change.replace(" ", "-")
    trial.write(adapter_root / name, config)
    assert_as_in_peft(http, adapter_root / name, name)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_of_another_dtype_through_links(
    http: httpx.Client, adapter_root: Path, dtype: torch.dtype
) -> None:
    name = str(dtype).rpartition(".")[2]
    blobs, snapshot = adapter_root / name / "blobs", adapter_root / name / "snapshot"
    blobs.mkdir(parents=True)
    snapshot.mkdir()
    tensors = load_file(ADAPTERS_DIR / "roll" / "adapter_model.safetensors")
    save_file({key: tensor.to(dtype) for key, tensor in tensors.items()}, blobs / "weights")
    config = json.loads((ADAPTERS_DIR / "roll" / "adapter_config.json").read_text())
    (blobs / "config").write_text(json.dumps(config))
    (snapshot / "adapter_config.json").symlink_to("../blobs/config")
    (snapshot / "adapter_model.safetensors").symlink_to("../blobs/weights")
    assert_as_in_peft(http, snapshot, name)
