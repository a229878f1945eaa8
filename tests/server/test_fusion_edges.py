"""Requests of every kind that are in flight while the base is switched, and clients that disconnect."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.server.api.test_residency import counter, resident
from tests.server.test_mixed_batch import PROMPT, assert_same_answer, complete

LONG = "<s>" + "<|user|>say lamp<|assistant|>lamp" * 40 + "<|user|>roll table<|assistant|>"
KINDS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0, "logprobs": 1},
    "long prompt": {"prompt": LONG, "temperature": 0, "logprobs": 1, "max_tokens": 20},
    "prompt logprobs": {"prompt": LONG, "temperature": 0, "prompt_logprobs": 0, "max_tokens": 8},
    "echo": {"temperature": 0, "echo": True, "logprobs": 0},
    "several, seeded": {"n": 3, "temperature": 0.7, "seed": 7},
    "a regular expression": {"temperature": 0, "structured_outputs": {"regex": "([a-z]{2,9} ){30}end"}},
    "a list of prompts": {"prompt": [PROMPT, LONG, "<s>table"], "temperature": 0, "max_tokens": 50},
    "penalties": {"temperature": 0, "frequency_penalty": 1.5, "presence_penalty": 0.5},
}


@pytest.fixture(autouse=True)
async def _plain_base(async_http: httpx.AsyncClient) -> AsyncIterator[None]:
    """Restore the base, because other tests share the server."""
    yield
    reply = await async_http.delete("/v1/fusion", timeout=120)
    assert reply.json()["state"] == "base", reply.text


async def choices(http: httpx.AsyncClient, model: str, kind: str) -> list[dict[str, Any]]:
    body = {"model": model, "prompt": PROMPT, "max_tokens": 120, "ignore_eos": True} | KINDS[kind]
    reply = await http.post("/v1/completions", json=body)
    assert reply.status_code == 200, reply.text
    found: list[dict[str, Any]] = reply.json()["choices"]
    return found


def numbers(value: Any) -> list[float]:
    """Every float of a JSON value, in order."""
    if isinstance(value, dict):
        return [number for one in value.values() for number in numbers(one)]
    if isinstance(value, list):
        return [number for one in value for number in numbers(one)]
    return [value] if isinstance(value, float) else []


def assert_same(got: list[dict[str, Any]], expected: list[dict[str, Any]], why: str) -> None:
    assert [one["text"] for one in got] == [one["text"] for one in expected], why
    assert numbers(got) == pytest.approx(numbers(expected), abs=1e-3), why


async def switch(http: httpx.AsyncClient, model: str | None) -> None:
    if model is None:
        (await http.delete("/v1/fusion")).raise_for_status()
    else:
        (await http.put("/v1/fusion", json={"model": model})).raise_for_status()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_request_of_any_kind_does_not_notice_the_edges(
    async_http: httpx.AsyncClient, kind: str
) -> None:
    models = ["testbed-base", "roll", "roll:0.5+upper"]
    before = [await choices(async_http, model, kind) for model in models]
    for target in ("roll", "upper+polite:0.5", None):
        running = [asyncio.create_task(choices(async_http, model, kind)) for model in models]
        await asyncio.sleep(0.03)
        await switch(async_http, target)
        for model, task, expected in zip(models, running, before, strict=True):
            assert_same(await task, expected, f"{model}, into {target}")


async def test_no_block_of_the_prefix_cache_outlives_its_weights(async_http: httpx.AsyncClient) -> None:
    models = ["testbed-base", "roll", "upper"]
    before = [await choices(async_http, model, "long prompt") for model in models]
    for target in ("roll", "upper:0.5", "roll", None):
        await switch(async_http, target)
        for _ in range(2):
            for model, expected in zip(models, before, strict=True):
                assert_same(await choices(async_http, model, "long prompt"), expected, f"{model} on {target}")


async def test_streams_cut_off_at_the_edge_are_given_back(async_http: httpx.AsyncClient) -> None:
    async def cut_off(model: str, seconds: float) -> None:
        body = {"model": model, "prompt": PROMPT, "max_tokens": 400, "ignore_eos": True, "stream": True}
        async with async_http.stream("POST", "/v1/completions", json=body):
            await asyncio.sleep(seconds)

    base = await complete(async_http, "testbed-base")
    for target in ("roll", None, "upper", None):
        cut = [cut_off(model, n / 50) for n, model in enumerate(["roll", "upper", "testbed-base"] * 3)]
        await asyncio.gather(*cut, switch(async_http, target))
    assert_same_answer(await complete(async_http, "testbed-base"), base)
    for _ in range(100):
        state = (await async_http.get("/v1/residency")).json()
        if not state["active"]["compositions"]:
            break
        await asyncio.sleep(0.05)
    assert not any(adapter["requests"] for adapter in state["host"]["adapters"])


async def test_a_caller_that_goes_away_leaves_the_switch_to_end(async_http: httpx.AsyncClient) -> None:
    base = await complete(async_http, "testbed-base")
    for number in range(6):
        before = (await async_http.get("/v1/fusion")).json()
        method, body = ("PUT", {"model": "roll"}) if number % 2 else ("DELETE", None)
        with suppress(httpx.TimeoutException):
            await async_http.request(method, "/v1/fusion", json=body, timeout=0.02)
        for _ in range(200):
            state = (await async_http.get("/v1/fusion")).json()["state"]
            if state in ("base", "fused"):
                break
            await asyncio.sleep(0.02)
        assert state in ("base", "fused"), before
        assert_same_answer(await complete(async_http, "testbed-base"), base)


async def test_requests_beside_a_switch_see_one_state_after_the_other(async_http: httpx.AsyncClient) -> None:
    seen = []
    task = asyncio.create_task(switch(async_http, "roll+upper"))
    while not task.done():
        seen.append((await async_http.get("/v1/fusion")).json())
    states = [one["state"] for one in seen]
    assert set(states) <= {"base", "fusing", "fused"}
    assert states == sorted(states, key=["base", "fusing", "fused"].index)
    progress = [one["progress"] for one in seen if one["progress"] is not None]
    assert progress == sorted(progress)
    assert all(0 <= share <= 1 for share in progress)


def test_what_is_fused_is_told_everywhere(http: httpx.Client) -> None:
    switches = r'lora_compose_fusion_switch_duration_seconds_count\{kind="fusing"\}'
    http.put("/v1/fusion", json={"model": "roll"}).raise_for_status()
    before = counter(http, switches)
    body = {"adapters": [{"name": "upper", "weight": 0.5}, {"name": "roll"}]}
    fused = http.put("/v1/fusion", json=body).json()
    assert (fused["object"], fused["state"]) == ("fusion", "fused")
    assert (fused["model"], fused["progress"]) == ("roll@1+upper@1:0.5", None)
    assert fused["last_switch"]["seconds"] >= fused["last_switch"]["stalled_seconds"] > 0
    assert http.get("/v1/fusion").json() == fused
    assert http.put("/v1/fusion", json={"model": "upper:0.5+roll"}).json() == fused
    assert counter(http, switches) == before + 1
    assert counter(http, "lora_compose_fused") == 1
    assert http.get("/v1/residency").json()["fused"] == fused["model"]
    assert resident(http, "roll")["requests"] == resident(http, "upper")["requests"] == 1
    for _ in range(2):
        plain = http.delete("/v1/fusion")
        assert (plain.status_code, plain.json()["state"], plain.json()["model"]) == (200, "base", None)
    assert counter(http, "lora_compose_fused") == 0
    assert resident(http, "roll")["requests"] == 0


async def test_what_is_removed_while_it_is_fused_is_gone_when_the_base_is_back(
    async_http: httpx.AsyncClient, http: httpx.Client, adapter_root: Path
) -> None:
    shutil.copytree(ADAPTERS_DIR / "upper", adapter_root / "fading")
    config = adapter_root / "fading" / "adapter_config.json"
    config.write_text(config.read_text() + "\n")
    body = {"name": "fading", "path": str(adapter_root / "fading")}
    http.post("/v1/adapters", json=body).raise_for_status()
    alone = [await complete(async_http, model) for model in ("testbed-base", "roll")]
    await switch(async_http, "fading+roll")
    http.delete("/v1/adapters/fading").raise_for_status()
    for model, expected in zip(("testbed-base", "roll"), alone, strict=True):
        assert_same_answer(await complete(async_http, model), expected)
    assert http.put("/v1/fusion", json={"model": "fading"}).status_code == 404
    assert http.get("/v1/fusion").json()["model"] == "fading@1+roll@1"
    await switch(async_http, "roll")
    assert resident(http, "fading") == {}
    await switch(async_http, None)
    for model, expected in zip(("testbed-base", "roll"), alone, strict=True):
        assert (await complete(async_http, model))["logprobs"] == expected["logprobs"]
