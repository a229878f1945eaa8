"""A served stack is the exact weighted sum of the deltas, as with PEFT's `cat`."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from lora_compose.training.testbed.paths import ADAPTERS_DIR, BASE_DIR

PROMPT = "<s><|user|>roll table<|assistant|>"
WEIGHTS = {"roll": 0.8, "upper": 1.3, "dbl": -0.4}


def served(http: httpx.Client, **names: object) -> dict[str, list[object]]:
    body: dict[str, object] = {
        "prompt": PROMPT,
        "add_special_tokens": False,
        "max_tokens": 12,
        "temperature": 0,
        "logprobs": 1,
        "return_token_ids": True,
    }
    reply = http.post("/v1/completions", json=body | names)
    assert reply.status_code == 200, reply.text
    choice = reply.json()["choices"][0]
    return {"ids": choice["token_ids"], "logprobs": choice["logprobs"]["token_logprobs"]}


def peft_logprobs(answer: list[int], weights: Mapping[str, float] = WEIGHTS) -> list[float]:
    """Log-probability of each token of `answer` under PEFT's `cat` of the adapters."""
    model = AutoModelForCausalLM.from_pretrained(BASE_DIR, dtype=torch.float32)
    names = list(weights)
    peft_model = PeftModel.from_pretrained(model, str(ADAPTERS_DIR / names[0]), adapter_name=names[0])
    for name in names[1:]:
        peft_model.load_adapter(str(ADAPTERS_DIR / name), adapter_name=name)
    peft_model.add_weighted_adapter(names, list(weights.values()), "sum", combination_type="cat")
    peft_model.set_adapter("sum")
    prompt = AutoTokenizer.from_pretrained(BASE_DIR)(PROMPT, add_special_tokens=False).input_ids
    with torch.no_grad():
        logits = peft_model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    return [logits[len(prompt) + i - 1, token].item() for i, token in enumerate(answer)]


def test_a_stack_s_logprobs_are_peft_cat_s(http: httpx.Client) -> None:
    adapters = [{"name": name, "weight": weight} for name, weight in WEIGHTS.items()]
    answer = served(http, model="testbed-base", adapters=adapters)
    assert answer["logprobs"] == pytest.approx(peft_logprobs(answer["ids"]), abs=1e-3)  # type: ignore[arg-type]


def test_an_adapter_minus_its_twin_is_the_base(http: httpx.Client, adapter_root: Path) -> None:
    shutil.copytree(ADAPTERS_DIR / "roll", adapter_root / "twin")
    http.post("/v1/adapters", json={"name": "twin", "path": str(adapter_root / "twin")}).raise_for_status()
    difference, base = served(http, model="roll+twin:-1"), served(http, model="testbed-base")
    assert difference["ids"] == base["ids"]
    assert difference["logprobs"] == pytest.approx(base["logprobs"], abs=1e-3)


def test_naming_a_member_twice_is_refused(http: httpx.Client) -> None:
    reply = http.post("/v1/completions", json={"model": "roll+roll:-1", "prompt": PROMPT})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "duplicate_member")


def test_order_and_spelling_of_weights_do_not_matter(http: httpx.Client) -> None:
    replies = [
        http.post("/v1/completions", json={"model": model, "prompt": PROMPT, "max_tokens": 1})
        for model in ("roll:0.50+upper", "upper:1+roll:0.5")
    ]
    assert len({reply.headers["x-lora-composition"] for reply in replies}) == 1


def test_more_rank_than_the_server_takes_is_refused_with_the_way_out(
    http: httpx.Client, adapter_root: Path
) -> None:
    names = [f"wide{i}" for i in range(9)]
    for name in names:
        shutil.copytree(ADAPTERS_DIR / "roll", adapter_root / name)
        http.post("/v1/adapters", json={"name": name, "path": str(adapter_root / name)}).raise_for_status()
    reply = http.post("/v1/completions", json={"model": "+".join(names), "prompt": PROMPT})
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (422, "rank_too_large")
    assert "72" in error["message"]
    assert "svd" in error["message"]
    for name in names:
        http.delete(f"/v1/adapters/{name}").raise_for_status()
