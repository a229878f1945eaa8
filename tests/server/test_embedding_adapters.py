"""Adapters of the input embedding and the output head answer as with PEFT, on the real engine.

The embedded base is tied: both ends have one weight, and an adapter of one of them must not change the other.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import LoraLayer
from transformers import AutoModelForCausalLM

from lora_compose.training.testbed.paths import BASE_DIR

# PEFT warns that it saves the base's own weights too, and about tied weights.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")

SETTINGS: dict[str, dict[str, Any]] = {
    "ends-plain": {"target_modules": ["q_proj", "up_proj"]},
    "ends-head": {"target_modules": ["v_proj", "lm_head"], "use_rslora": True},
    "ends-embedding": {"target_modules": ["q_proj", "embed_tokens"], "rank_pattern": {"embed_tokens": 3}},
    "ends-both": {"target_modules": ["embed_tokens", "lm_head"]},
    "ends-tied": {"target_modules": ["embed_tokens"], "ensure_weight_tying": True},
}
MODELS: dict[str, dict[str, float]] = {
    "testbed-base": {},
    **{name: {name: 1.0} for name in SETTINGS},
    "ends-head:0.5+ends-embedding": {"ends-head": 0.5, "ends-embedding": 1.0},
    "ends-both:-1+ends-head:0.7+ends-plain": {"ends-both": -1.0, "ends-head": 0.7, "ends-plain": 1.0},
}
PROMPTS = [[1, *range(60, 75)], [1, *range(90, 130)], [1, 7, 9, 11]]


@pytest.fixture(scope="module")
def saved(adapter_root: Path) -> dict[str, Path]:
    """Adapters that PEFT has saved, with factors like those of a training."""
    found = {}
    for seed, (name, settings) in enumerate(SETTINGS.items()):
        base = AutoModelForCausalLM.from_pretrained(BASE_DIR)
        model = get_peft_model(base, LoraConfig(r=4 + seed, lora_alpha=8, task_type="CAUSAL_LM", **settings))
        torch.manual_seed(seed)
        for parameter_name, parameter in model.named_parameters():
            if "lora_" in parameter_name:
                torch.nn.init.normal_(parameter, std=0.08)
        found[name] = adapter_root / name
        model.save_pretrained(str(found[name]))
    return found


@pytest.fixture(scope="module", autouse=True)
def _registered(server: Any, saved: dict[str, Path]) -> Iterator[None]:
    """Remove the adapters afterwards, because other tests count those of the shared server."""
    with httpx.Client(base_url=server.url, timeout=60) as http:
        for name, path in saved.items():
            reply = http.post("/v1/adapters", json={"name": name, "path": str(path)})
            assert reply.status_code == 201, reply.text
        yield
        for name in saved:
            http.delete(f"/v1/adapters/{name}").raise_for_status()


@pytest.fixture
async def _plain_base(async_http: httpx.AsyncClient) -> AsyncIterator[None]:
    """Restore the base, because other tests share the server."""
    yield
    reply = await async_http.delete("/v1/fusion", timeout=120)
    assert reply.json()["state"] == "base", reply.text


def peft_model(saved: Mapping[str, Path], members: Mapping[str, float]) -> Any:
    """PEFT with all members active, each multiplied by its weight."""
    base = AutoModelForCausalLM.from_pretrained(BASE_DIR, dtype=torch.float32)
    if not members:
        return base.eval()
    first, *others = members
    model = PeftModel.from_pretrained(base, str(saved[first]), adapter_name=first)
    for name in others:
        model.load_adapter(str(saved[name]), adapter_name=name)
    model.base_model.set_adapter(list(members))
    for layer in (module for module in model.modules() if isinstance(module, LoraLayer)):
        for name in layer.scaling:
            layer.scaling[name] *= members[name]
    return model.eval()


@pytest.fixture(scope="module")
def theirs(saved: dict[str, Path]) -> dict[str, Any]:
    return {name: peft_model(saved, members) for name, members in MODELS.items()}


async def answer(http: httpx.AsyncClient, model: str, prompt: list[int]) -> dict[str, Any]:
    body = {"model": model, "prompt": prompt, "max_tokens": 12, "temperature": 0, "logprobs": 1}
    wanted = {"return_token_ids": True, "ignore_eos": True, "prompt_logprobs": 0}
    reply = await http.post("/v1/completions", json=body | wanted)
    assert reply.status_code == 200, reply.text
    choice: dict[str, Any] = reply.json()["choices"][0]
    return choice


def assert_as_peft(choice: dict[str, Any], model: Any, prompt: list[int]) -> None:
    """The log-probabilities of the answer's and the prompt's tokens are PEFT's."""
    ids = prompt + choice["token_ids"]
    with torch.no_grad():
        logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    expected = [logprobs[i, token].item() for i, token in enumerate(ids[1:])]
    of_prompt = [
        entry[str(token)]["logprob"]
        for token, entry in zip(prompt[1:], choice["prompt_logprobs"][1:], strict=True)
    ]
    assert choice["logprobs"]["token_logprobs"] == pytest.approx(expected[len(prompt) - 1 :], abs=2e-5)
    assert of_prompt == pytest.approx(expected[: len(prompt) - 1], abs=5e-5)


async def assert_all_as_peft(http: httpx.AsyncClient, theirs: Mapping[str, Any], times: int = 1) -> None:
    """All models and prompts together, so that they are answered in mixed batches."""
    asked = [(model, prompt) for prompt in PROMPTS for model in MODELS] * times
    choices = await asyncio.gather(*(answer(http, model, prompt) for model, prompt in asked))
    for (model, prompt), choice in zip(asked, choices, strict=True):
        assert_as_peft(choice, theirs[model], prompt)


@pytest.mark.parametrize("model", MODELS)
async def test_alone(async_http: httpx.AsyncClient, theirs: dict[str, Any], model: str) -> None:
    for prompt in PROMPTS:
        assert_as_peft(await answer(async_http, model, prompt), theirs[model], prompt)


async def test_in_a_mixed_batch(async_http: httpx.AsyncClient, theirs: dict[str, Any]) -> None:
    await assert_all_as_peft(async_http, theirs, times=3)


@pytest.mark.usefixtures("_plain_base")
@pytest.mark.parametrize("fused", ["ends-both", "ends-tied", "ends-head:0.5+ends-embedding"])
async def test_beside_a_fused_composition(
    async_http: httpx.AsyncClient, theirs: dict[str, Any], fused: str
) -> None:
    (await async_http.put("/v1/fusion", json={"model": fused})).raise_for_status()
    await assert_all_as_peft(async_http, theirs)


async def test_after_a_fusion_the_base_is_the_same_to_the_bit(async_http: httpx.AsyncClient) -> None:
    before = [await answer(async_http, "testbed-base", prompt) for prompt in PROMPTS]
    (await async_http.put("/v1/fusion", json={"model": "ends-both"})).raise_for_status()
    (await async_http.delete("/v1/fusion")).raise_for_status()
    assert [await answer(async_http, "testbed-base", prompt) for prompt in PROMPTS] == before


async def test_a_merge_at_full_rank_answers_as_the_stack(
    async_http: httpx.AsyncClient, theirs: dict[str, Any]
) -> None:
    stack = "ends-head:0.5+ends-embedding"
    for prompt in PROMPTS:
        assert_as_peft(await answer(async_http, f"linear({stack})", prompt), theirs[stack], prompt)


async def test_the_memory_of_both_ends_is_counted(async_http: httpx.AsyncClient) -> None:
    await answer(async_http, "ends-both", PROMPTS[0])
    adapters = (await async_http.get("/v1/residency")).json()["host"]["adapters"]
    (found,) = (entry for entry in adapters if entry["id"].startswith("ends-both@"))
    rank, vocabulary, width = 7, 262, 128
    assert found["bytes"] >= 2 * 4 * rank * (vocabulary + width)
