"""`/v1/residency`, pins, prefetching and the counters, on the real server."""

import asyncio
import random
import re
import shutil
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.server.test_mixed_batch import PROMPT, assert_same_answer, complete
from tests.server.test_stack import peft_logprobs, served

MEMBERS = ("roll", "upper", "polite", "dbl")


def counter(http: httpx.Client, name: str) -> float:
    match = re.search(rf"^{name} (\S+)$", http.get("/metrics").text, re.MULTILINE)
    assert match is not None, name
    return float(match[1])


def resident(http: httpx.Client, name: str) -> dict[str, Any]:
    adapters = http.get("/v1/residency").json()["host"]["adapters"]
    return next((one for one in adapters if one["id"] == f"{name}@1"), {})


def test_registering_prepares_before_anybody_asks(http: httpx.Client, adapter_root: Path) -> None:
    shutil.copytree(ADAPTERS_DIR / "code", adapter_root / "early")
    config = (adapter_root / "early" / "adapter_config.json").read_text()
    (adapter_root / "early" / "adapter_config.json").write_text(
        config + "\n"
    )  # other files, so another build
    http.post("/v1/adapters", json={"name": "early", "path": str(adapter_root / "early")}).raise_for_status()
    deadline = time.monotonic() + 10
    while resident(http, "early").get("state") != "prepared" and time.monotonic() < deadline:
        time.sleep(0.02)
    found = resident(http, "early")
    assert (found["state"], found["workers"], found["requests"]) == ("prepared", 1, 0)
    assert found["bytes"] > 100_000
    assert http.delete("/v1/adapters/early").status_code == 204
    assert resident(http, "early") == {}


def test_a_pin_is_shown_and_can_be_taken_back(http: httpx.Client) -> None:
    assert http.put("/v1/adapters/roll/pin").json() == {
        "object": "adapter.pin",
        "id": "roll@1",
        "pinned": True,
    }
    assert resident(http, "roll")["pinned"]
    assert http.delete("/v1/adapters/roll/pin").status_code == 204
    assert not resident(http, "roll")["pinned"]


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("reference", ["nobody", "roll@7", "roll@nowhere"])
def test_what_is_not_registered_cannot_be_pinned(
    plain_http: httpx.Client, method: str, reference: str
) -> None:
    reply = plain_http.request(method, f"/v1/adapters/{reference}/pin")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")


async def test_a_thousand_weightings_build_nothing(http: httpx.Client, async_http: httpx.AsyncClient) -> None:
    await complete(async_http, "+".join(MEMBERS))
    names = ("lora_compose_prepare_duration_seconds_count", "lora_compose_evictions_total")
    before = [counter(http, name) for name in names]
    hits = counter(http, "lora_compose_residency_hits_total")
    draw = np.random.default_rng(0)
    texts = [
        "+".join(f"{m}:{w:.4f}" for m, w in zip(MEMBERS, row, strict=True))
        for row in draw.normal(size=(1000, 4))
    ]
    waiting = iter(texts)

    async def client() -> None:
        for text in waiting:
            body = {"model": text, "prompt": PROMPT, "max_tokens": 1, "temperature": 0}
            reply = await async_http.post("/v1/completions", json=body)
            assert reply.status_code == 200, reply.text

    await asyncio.gather(*(client() for _ in range(16)))
    assert [counter(http, name) for name in names] == before
    assert counter(http, "lora_compose_residency_hits_total") == hits + 1000
    some = random.Random(0).sample(texts, 6)
    alone = [await complete(async_http, text) for text in some]
    for text in some[:2]:
        weights = {member: float(weight) for member, weight in (m.split(":") for m in text.split("+"))}
        answer = served(http, model=text)
        assert answer["logprobs"] == pytest.approx(peft_logprobs(answer["ids"], weights), abs=1e-3)  # type: ignore[arg-type]
    assert len({str(one["logprobs"]) for one in alone}) == 6
    for got, expected in zip(
        await asyncio.gather(*(complete(async_http, t) for t in some)), alone, strict=True
    ):
        assert_same_answer(got, expected)


async def test_who_asks_for_what_can_be_seen(http: httpx.Client, async_http: httpx.AsyncClient) -> None:
    body = {"prompt": PROMPT, "max_tokens": 1000, "ignore_eos": True, "stream": True}
    models = ["roll:0.3+upper", "roll+upper:0.5", "roll", "roll"]
    async with AsyncExitStack() as streams:
        for model in models:
            stream = async_http.stream("POST", "/v1/completions", json=body | {"model": model})
            assert (await streams.enter_async_context(stream)).status_code == 200
        state = http.get("/v1/residency").json()
    active = sorted(state["active"]["compositions"], key=len)
    assert active == [{"roll@1": 2}, {"roll@1+upper@1:0.5": 1, "roll@1:0.3+upper@1": 1}]
    requests = {adapter["id"]: adapter["requests"] for adapter in state["host"]["adapters"]}
    assert (requests["roll@1"], requests["upper@1"]) == (4, 2)


def test_hits_and_misses_are_counted_once_a_request(http: httpx.Client, adapter_root: Path) -> None:
    """Adapters with the same files share a build."""
    names = [f"lora_compose_residency_{kind}_total" for kind in ("hits", "misses")]

    def counted() -> list[float]:
        return [counter(http, name) for name in names]

    served(http, model="upper")
    before = counted()
    for expected, model in enumerate(("upper", "upper:0.5", "upper"), start=1):
        served(http, model=model)
        assert counted() == [before[0] + expected, before[1]]
    served(http, model="testbed-base")
    assert http.post("/tokenize", json={"model": "upper", "prompt": "x"}).status_code == 200
    assert counted() == [before[0] + 3, before[1]]
    built = counter(http, "lora_compose_prepare_duration_seconds_count")
    shutil.copytree(ADAPTERS_DIR / "upper", adapter_root / "other-name")
    body = {"name": "other-name", "path": str(adapter_root / "other-name")}
    http.post("/v1/adapters", json=body).raise_for_status()
    served(http, model="other-name")
    assert counter(http, "lora_compose_prepare_duration_seconds_count") == built
    http.delete("/v1/adapters/other-name").raise_for_status()
    assert resident(http, "upper")["state"] == "prepared"


async def test_nothing_is_held_when_nobody_asks(http: httpx.Client, async_http: httpx.AsyncClient) -> None:
    """Requests that finish, fail, are cut off or have several choices: each releases its build once."""
    ok = {"model": "roll+upper", "prompt": PROMPT, "max_tokens": 4, "n": 3}
    assert (await async_http.post("/v1/completions", json=ok)).status_code == 200
    assert (await async_http.post("/v1/completions", json=ok | {"temperature": -1})).status_code == 400
    for chunks in range(6):
        body = ok | {"stream": True, "max_tokens": 500, "ignore_eos": True, "n": 2}
        async with async_http.stream("POST", "/v1/completions", json=body) as reply:
            lines = reply.aiter_lines()
            for _ in range(chunks):
                await anext(lines)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        state = http.get("/v1/residency").json()
        if not state["active"]["compositions"]:
            break
        await asyncio.sleep(0.05)
    assert state["active"]["compositions"] == []
    assert all(not adapter["requests"] for adapter in state["host"]["adapters"])


def test_no_path_is_told(http: httpx.Client) -> None:
    assert "/" not in re.sub(r"/v1|@|\d+/", "", http.get("/v1/residency").text)


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_other_verbs_are_not_allowed(plain_http: httpx.Client, method: str) -> None:
    for path in ("/v1/residency", "/v1/fusion", "/v1/adapters/roll/pin"):
        assert plain_http.request(method, path).status_code == 405
