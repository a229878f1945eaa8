"""DoRA and `lora_bias` are PEFT's: alone, in stacks, in mixed batches, merged and fused."""

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from lora_compose.training.testbed.paths import BASE_DIR
from tests.running_server import RunningServer

pytestmark = pytest.mark.filterwarnings("ignore::peft.utils.warning.PeftWarning")

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ADAPTERS: dict[str, dict[str, Any]] = {
    "dora": {"target_modules": ALL, "r": 8, "use_dora": True},
    "dora-two": {"target_modules": ("q_proj", "down_proj"), "r": 4, "use_dora": True, "use_rslora": True},
    "biased": {"target_modules": ALL, "r": 8, "lora_bias": True},
    "ordinary": {"target_modules": ("v_proj", "up_proj"), "r": 16},
}
COMPOSITIONS: dict[str, dict[str, float]] = {
    "testbed-base": {},
    "dora": {"dora": 1.0},
    "dora-two": {"dora-two": 1.0},
    "biased": {"biased": 1.0},
    "ordinary": {"ordinary": 1.0},
    "dora:0.5": {"dora": 0.5},
    "dora:-1": {"dora": -1.0},
    "dora+dora-two": {"dora": 1.0, "dora-two": 1.0},
    "dora:0.7+ordinary:-0.4+biased:1.3": {"dora": 0.7, "ordinary": -0.4, "biased": 1.3},
    "linear(dora:0.6+ordinary)": {"dora": 0.6, "ordinary": 1.0},
    "linear(biased:0.5+ordinary)": {"biased": 0.5, "ordinary": 1.0},
}
PROMPTS = ("<s><|user|>roll table<|assistant|>", "<s><|user|>say lamp<|assistant|>")
EXACT = 2e-5
"""The base alone differs by 3e-6 between vLLM and transformers."""


def save(name: str, directory: Path, base: Path = BASE_DIR) -> None:
    """A random adapter, as PEFT writes it."""
    torch.manual_seed(len(name))
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    peft = get_peft_model(model, LoraConfig(lora_alpha=16, **ADAPTERS[name]))
    for key, parameter in peft.named_parameters():
        if "lora_B" in key:
            parameter.data.normal_(0, 0.02)
        if "magnitude" in key:
            parameter.data.mul_(1 + 0.1 * torch.randn_like(parameter))
    peft.save_pretrained(directory)


class Reference:
    """The base in transformers; each layer adds the weighted differences that PEFT's layers make."""

    def __init__(self, root: Path, base: Path = BASE_DIR) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        self.layers = {name: self._layers(root / name, base) for name in ADAPTERS}

    @staticmethod
    def _layers(directory: Path, base: Path) -> dict[str, Any]:
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        peft = PeftModel.from_pretrained(model, str(directory)).eval()
        found = {n: module for n, module in peft.named_modules() if hasattr(module, "base_layer")}
        return {name.removeprefix("base_model.model."): module for name, module in found.items()}

    def logprobs(self, prompt: str, answer: list[int], weights: Mapping[str, float]) -> list[float]:
        ids = self.tokenizer(prompt, add_special_tokens=False).input_ids
        hooks = [
            module.register_forward_hook(self._hook(name, weights))
            for name, module in self.model.named_modules()
        ]
        with torch.no_grad():
            logits = self.model(torch.tensor([ids + answer])).logits[0].log_softmax(-1)
        for hook in hooks:
            hook.remove()
        return [logits[len(ids) + i - 1, token].item() for i, token in enumerate(answer)]

    def _hook(self, name: str, weights: Mapping[str, float]) -> Any:
        def add(_: Any, inputs: Any, output: Any) -> Any:
            changed = output
            for adapter, weight in weights.items():
                if name in self.layers[adapter]:
                    changed = changed + weight * (self.layers[adapter][name](*inputs) - output)
            return changed

        return add


@pytest.fixture(scope="module")
def reference(server: RunningServer, adapter_root: Path) -> Iterator[Reference]:
    with httpx.Client(base_url=server.url, timeout=60) as http:
        for name in ADAPTERS:
            save(name, adapter_root / name)
            body = {"name": name, "path": str(adapter_root / name)}
            http.post("/v1/adapters", json=body).raise_for_status()
        yield Reference(adapter_root)
        for name in ADAPTERS:
            http.delete(f"/v1/adapters/{name}?cascade=true")


def body_of(model: str, prompt: str) -> dict[str, Any]:
    body = {"model": model, "prompt": prompt, "add_special_tokens": False, "max_tokens": 12}
    return body | {"temperature": 0, "logprobs": 1, "return_token_ids": True, "ignore_eos": True}


def difference(reference: Reference, model: str, prompt: str, reply: httpx.Response) -> float:
    """The largest difference of a token's log-probability to PEFT's."""
    assert reply.status_code == 200, reply.text
    choice = reply.json()["choices"][0]
    got, answer = choice["logprobs"]["token_logprobs"], choice["token_ids"]
    expected = reference.logprobs(prompt, answer, COMPOSITIONS[model])
    return max(abs(float(a) - b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("model", COMPOSITIONS)
def test_alone_it_is_peft_s(http: httpx.Client, reference: Reference, model: str) -> None:
    for prompt in PROMPTS:
        reply = http.post("/v1/completions", json=body_of(model, prompt))
        assert difference(reference, model, prompt, reply) < EXACT


async def mixed(async_http: httpx.AsyncClient, reference: Reference) -> float:
    """The largest difference in a batch of every composition and prompt, twice."""
    jobs = [(model, prompt) for model in COMPOSITIONS for prompt in PROMPTS] * 2
    replies = await asyncio.gather(*(async_http.post("/v1/completions", json=body_of(*job)) for job in jobs))
    return max(difference(reference, *job, reply) for job, reply in zip(jobs, replies, strict=True))


async def test_every_row_of_a_mixed_batch_is_peft_s(
    async_http: httpx.AsyncClient, reference: Reference
) -> None:
    assert await mixed(async_http, reference) < EXACT


@pytest.mark.parametrize(
    "fused", ["dora", "dora:0.7+ordinary:-0.4+biased:1.3", "biased", "linear(dora:0.6+ordinary)"]
)
async def test_everything_is_peft_s_while_it_is_fused_and_the_base_is_restored_to_the_bit(
    async_http: httpx.AsyncClient, reference: Reference, fused: str
) -> None:
    body = body_of("testbed-base", PROMPTS[0])
    before = (await async_http.post("/v1/completions", json=body)).json()["choices"][0]["logprobs"]
    (await async_http.put("/v1/fusion", json={"model": fused})).raise_for_status()
    try:
        assert await mixed(async_http, reference) < EXACT
    finally:
        (await async_http.delete("/v1/fusion")).raise_for_status()
    after = (await async_http.post("/v1/completions", json=body)).json()["choices"][0]["logprobs"]
    assert after == before


def test_residency_counts_the_vectors(http: httpx.Client, reference: Reference) -> None:
    for name in ADAPTERS:
        http.post("/v1/completions", json=body_of(name, PROMPTS[0])).raise_for_status()
    adapters = http.get("/v1/residency").json()["host"]["adapters"]
    size = {adapter["id"]: adapter["bytes"] for adapter in adapters}
    assert reference.layers["dora"].keys() == reference.layers["biased"].keys()
    factors = sum(
        module.lora_A["default"].weight.nbytes + module.lora_B["default"].weight.nbytes
        for module in reference.layers["dora"].values()
    )
    assert size["dora@1"] == size["biased@1"] > factors


def test_a_fusion_that_would_lose_a_row_of_the_base_is_refused(
    http: httpx.Client, reference: Reference, adapter_root: Path
) -> None:
    save("dora", adapter_root / "doubled")
    path = adapter_root / "doubled" / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({n: 2 * t if "magnitude" in n else t for n, t in tensors.items()}, path)
    body = {"name": "doubled", "path": str(adapter_root / "doubled")}
    http.post("/v1/adapters", json=body).raise_for_status()
    assert http.put("/v1/fusion", json={"model": "doubled:-0.9"}).json()["error"]["code"] == "not_fusable"
    assert http.get("/v1/fusion").json()["state"] == "base"
    http.delete("/v1/adapters/doubled?cascade=true").raise_for_status()


def test_what_peft_cannot_express_as_one_adapter_is_refused(http: httpx.Client, reference: Reference) -> None:
    reply = http.post("/v1/completions", json=body_of("linear(dora+biased)", PROMPTS[0]))
    assert reply.status_code == 422
    assert reply.json()["error"]["code"] == "unsupported_feature"
    assert "stack" in reply.json()["error"]["message"]
