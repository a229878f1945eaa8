"""Fusing into the running base and restoring it, on the real server, with requests before and after."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest

from tests.server.test_mixed_batch import PROMPT, assert_same_answer, complete

MODELS = [
    "testbed-base",
    "roll",
    "upper",
    "roll+upper",
    "roll:0.7+polite:0.4",
    "svd(roll+upper,rank=8)",
    "dbl:-1",
]


@pytest.fixture(autouse=True)
async def _plain_base(async_http: httpx.AsyncClient) -> AsyncIterator[None]:
    """Restore the base, because other tests share the server."""
    yield
    assert (await async_http.delete("/v1/fusion")).json()["state"] == "base"


async def answers(http: httpx.AsyncClient) -> list[dict[str, Any]]:
    return [await complete(http, model) for model in MODELS]


async def fuse(http: httpx.AsyncClient, model: str) -> dict[str, Any]:
    reply = await http.put("/v1/fusion", json={"model": model})
    assert reply.status_code == 200, reply.text
    state: dict[str, Any] = reply.json()
    assert state["state"] == "fused"
    return state


@pytest.mark.parametrize("fused", ["roll+upper", "roll", "roll:0.7+polite:0.4", "svd(roll+upper,rank=8)"])
async def test_every_answer_is_what_it_was(async_http: httpx.AsyncClient, fused: str) -> None:
    before = await answers(async_http)
    state = await fuse(async_http, fused)
    assert state["last_switch"]["stalled_seconds"] <= state["last_switch"]["seconds"]
    alone = await answers(async_http)
    together = await asyncio.gather(*(complete(async_http, model) for model in MODELS * 2))
    for expected, *got in zip(before * 2, alone * 2, together, strict=True):
        for one in got:
            assert_same_answer(one, expected)
    await async_http.delete("/v1/fusion")
    restored = await answers(async_http)
    assert restored[0]["logprobs"] == before[0]["logprobs"]
    for after, expected in zip(restored, before, strict=True):
        assert_same_answer(after, expected)


async def test_twenty_rounds_under_traffic_lose_nothing_and_restore_to_the_bit(
    async_http: httpx.AsyncClient,
) -> None:
    before = dict(zip(MODELS, await answers(async_http), strict=True))
    stop, answered, served = asyncio.Event(), asyncio.Event(), 0

    async def client(seed: int) -> None:
        nonlocal served
        draw = random.Random(seed)
        while not stop.is_set():
            model = draw.choice(MODELS)
            assert_same_answer(await complete(async_http, model), before[model])
            served += 1
            answered.set()

    clients = [asyncio.create_task(client(seed)) for seed in range(5)]
    for number in range(20):
        await fuse(async_http, ["roll+upper", "polite", "roll"][number % 3])
        answered.clear()
        await answered.wait()  # at least one request ends in each state
        if number % 4:  # sometimes fuse the next one without restoring
            await async_http.delete("/v1/fusion")
    stop.set()
    await asyncio.gather(*clients)
    await async_http.delete("/v1/fusion")
    assert served > 50
    assert (await complete(async_http, "testbed-base"))["logprobs"] == before["testbed-base"]["logprobs"]


def test_a_stream_goes_on_across_the_edges(client: openai.OpenAI, http: httpx.Client) -> None:
    asked: dict[str, Any] = {
        "prompt": PROMPT,
        "max_tokens": 400,
        "temperature": 0,
        "extra_body": {"ignore_eos": True},
    }
    expected = client.completions.create(model="roll", **asked).choices[0].text
    pieces = []
    for number, chunk in enumerate(client.completions.create(model="roll", stream=True, **asked)):
        pieces.append(chunk.choices[0].text)
        if number == 20:
            http.put("/v1/fusion", json={"model": "roll+upper"}).raise_for_status()
        if number == 60:
            http.delete("/v1/fusion").raise_for_status()
    assert "".join(pieces) == expected


async def test_a_switch_at_a_time(async_http: httpx.AsyncClient) -> None:
    models = ["roll", "upper", "polite", "dbl"]
    replies = await asyncio.gather(*(async_http.put("/v1/fusion", json={"model": m}) for m in models))
    statuses = sorted(reply.status_code for reply in replies)
    assert statuses[0] == 200
    for reply in replies:
        assert reply.status_code == 200 or reply.json()["error"]["code"] == "fusion_busy"
    assert (await async_http.get("/v1/fusion")).json()["state"] == "fused"


async def test_what_is_fused_may_be_removed(async_http: httpx.AsyncClient, adapter_root: Any) -> None:
    import shutil

    from lora_compose.training.testbed.paths import ADAPTERS_DIR

    base = await complete(async_http, "testbed-base")
    shutil.copytree(ADAPTERS_DIR / "upper", adapter_root / "short-lived")
    body = {"name": "short-lived", "path": str(adapter_root / "short-lived")}
    (await async_http.post("/v1/adapters", json=body)).raise_for_status()
    await fuse(async_http, "short-lived:0.5+roll")
    assert (await async_http.delete("/v1/adapters/short-lived")).status_code == 204
    gone = await async_http.post("/v1/completions", json={"model": "short-lived", "prompt": PROMPT})
    assert gone.status_code == 404
    assert_same_answer(await complete(async_http, "testbed-base"), base)
    await async_http.delete("/v1/fusion")
    assert (await complete(async_http, "testbed-base"))["logprobs"] == base["logprobs"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"model": "nobody"}, 404, "model_not_found"),
        ({"model": "testbed-base"}, 400, "invalid_composition"),
        ({}, 400, "invalid_composition"),
        ({"model": "roll", "when": "now"}, 400, "unknown_field"),
        ({"model": "roll:nan"}, 400, "invalid_weight"),
    ],
)
async def test_what_cannot_be_fused_changes_nothing(
    async_http: httpx.AsyncClient, body: dict[str, Any], status: int, code: str
) -> None:
    reply = await async_http.put("/v1/fusion", json=body)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
    assert (await async_http.get("/v1/fusion")).json()["state"] == "base"
