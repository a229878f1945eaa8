"""In one batch, every request gets the answer of its own composition."""

import asyncio
from typing import Any

import httpx
import pytest

MODELS = [
    "testbed-base",
    "roll",
    "dbl",
    "upper",
    "polite",
    "roll+upper",
    "roll:0.7+polite:0.4",
    "svd(roll+upper,rank=8)",
    "ties(dbl+polite,density=0.5)",
]
PROMPT = "<s><|user|>roll table<|assistant|>"


async def complete(http: httpx.AsyncClient, model: str, prompt: str = PROMPT) -> dict[str, Any]:
    body = {"model": model, "prompt": prompt, "max_tokens": 12, "temperature": 0, "logprobs": 2}
    reply = await http.post("/v1/completions", json=body)
    assert reply.status_code == 200, reply.text
    choice: dict[str, Any] = reply.json()["choices"][0]
    return choice


def assert_same_answer(got: dict[str, Any], expected: dict[str, Any]) -> None:
    assert got["text"] == expected["text"]
    assert got["logprobs"]["tokens"] == expected["logprobs"]["tokens"]
    assert got["logprobs"]["token_logprobs"] == pytest.approx(
        expected["logprobs"]["token_logprobs"], abs=1e-3
    )


async def test_every_answer_of_a_mixed_batch_is_the_answer_it_gets_alone(
    async_http: httpx.AsyncClient,
) -> None:
    alone = [await complete(async_http, model) for model in MODELS]
    assert len({choice["text"] for choice in alone}) >= 5
    mixed = await asyncio.gather(*(complete(async_http, model) for model in MODELS * 3))
    for got, expected in zip(mixed, alone * 3, strict=True):
        assert_same_answer(got, expected)


async def test_base_rows_beside_adapter_rows_stay_the_base_s(async_http: httpx.AsyncClient) -> None:
    """Stock vLLM's CPU kernels fail here: a base row gets the last slot's adapter."""
    prompts = [f"<s><|user|>say {word}<|assistant|>" for word in ("lamp", "tree", "stone", "river")]
    alone = [await complete(async_http, "testbed-base", prompt) for prompt in prompts]
    others = [complete(async_http, model) for model in ("upper", "polite", "dbl", "roll+upper")]
    mixed = await asyncio.gather(
        *(complete(async_http, "testbed-base", prompt) for prompt in prompts), *others
    )
    for got, expected in zip(mixed, alone, strict=False):
        assert_same_answer(got, expected)


async def test_more_compositions_than_slots_in_flight_are_all_answered(async_http: httpx.AsyncClient) -> None:
    models = [f"roll:{weight / 10}+upper" for weight in range(1, 21)]
    alone = [await complete(async_http, model) for model in models]
    mixed = await asyncio.gather(*(complete(async_http, model) for model in models))
    for got, expected in zip(mixed, alone, strict=True):
        assert_same_answer(got, expected)
