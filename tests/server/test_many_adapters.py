"""Two hundred adapters on a server that keeps 32 in memory and runs 8 at a time, in a realistic mix."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest

from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.server.api.test_residency import counter
from tests.server.lone_server import IN_MEMORY, SLOTS, LoneServer
from tests.server.test_mixed_batch import assert_same_answer, complete
from tests.server.test_registering import changed_copy

ADAPTERS, REQUESTS, AT_ONCE = 200, 600, 24
NAMES = [f"one{number}" for number in range(ADAPTERS)]
PREPARED, EVICTED = "lora_compose_prepare_duration_seconds_count", "lora_compose_evictions_total"


@dataclass(frozen=True)
class Books:
    """Memory and counters of the server before the two hundred adapters were registered."""

    url: str
    resident: list[str]
    prepared: float
    evicted: float


@pytest.fixture(scope="module")
def books(lone: LoneServer) -> Books:
    """The server with two hundred adapters: each shipped one scaled 25 ways."""
    sources = sorted(path.name for path in ADAPTERS_DIR.iterdir())
    for number, name in enumerate(NAMES):
        changed_copy(
            sources[number % len(sources)], lone.home / "adapters" / name, 1.5 - number * 3 / ADAPTERS
        )
    with lone.client() as http:
        http.delete("/v1/fusion").raise_for_status()
        state = http.get("/v1/residency").json()["host"]["adapters"]
        for pinned in (part["id"] for part in state if part["pinned"]):
            http.delete(f"/v1/adapters/{pinned}/pin").raise_for_status()
        resident = [part["id"] for part in state]
        before = Books(lone.url, resident, counter(http, PREPARED), counter(http, EVICTED))
        for name in NAMES:
            body = {"name": name, "path": str(lone.home / "adapters" / name)}
            http.post("/v1/adapters", json=body).raise_for_status()
    return before


@pytest.fixture
def many(books: Books) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=books.url, timeout=60) as http:
        yield http


@pytest.fixture
async def async_many(books: Books) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=books.url, timeout=120, limits=limits) as http:
        yield http


def assert_books_are_right(http: httpx.Client, before: Books) -> None:
    """Without requests, nothing is held, and our list of builds is the list of the workers."""
    state = http.get("/v1/residency").json()
    adapters = state["host"]["adapters"]
    assert (state["queued"], state["active"]["compositions"]) == (0, [])
    assert len(adapters) == counter(http, "lora_compose_prepared_adapters") <= IN_MEMORY
    for adapter in adapters:
        assert (adapter["state"], adapter["requests"], adapter["workers"]) == ("prepared", 0, 1)
        assert adapter["bytes"] > 0
    made = counter(http, PREPARED) - before.prepared
    gone = counter(http, EVICTED) - before.evicted
    assert len(before.resident) + made - gone == len(adapters)


def test_registering_prepares_what_there_is_free_room_for_and_evicts_nothing(
    many: httpx.Client, books: Books
) -> None:
    state = many.get("/v1/residency").json()
    assert (state["host"]["capacity"], state["active"]["slots"]) == (IN_MEMORY, SLOTS)
    free = IN_MEMORY - len(books.resident)
    new = [f"{name}@1" for name in NAMES[:free]]
    assert [adapter["id"] for adapter in state["host"]["adapters"]] == [*books.resident, *new]
    assert counter(many, EVICTED) == books.evicted


async def test_popular_and_rare_ones_all_get_their_own_answer(
    many: httpx.Client, async_many: httpx.AsyncClient, books: Books
) -> None:
    draw = np.random.default_rng(0)
    popular = draw.permutation(NAMES)
    ranks = np.minimum(draw.zipf(1.2, size=(REQUESTS, 2)) - 1, ADAPTERS * 50) % ADAPTERS
    models = [str(popular[first]) for first, _ in ranks]
    for number in range(0, REQUESTS, 10):  # some requests use two adapters
        if ranks[number][0] != ranks[number][1]:
            models[number] += f"+{popular[ranks[number][1]]}:0.5"
    assert len(set(models)) > 100
    alone = {model: await complete(async_many, model) for model in sorted(set(models))[::3]}
    assert len({str(answer["logprobs"]) for answer in alone.values()}) == len(alone)
    counters = ("lora_compose_residency_hits_total", "lora_compose_residency_misses_total")
    before = [counter(many, name) for name in counters]
    answered: dict[int, dict[str, Any]] = {}
    waiting = iter(enumerate(models))

    async def client() -> None:
        for number, model in waiting:
            answered[number] = await complete(async_many, model)

    await asyncio.gather(*(client() for _ in range(AT_ONCE)))
    assert len(answered) == REQUESTS
    for number, answer in answered.items():
        if models[number] in alone:
            assert_same_answer(answer, alone[models[number]])
    hits, misses = (counter(many, name) - was for name, was in zip(counters, before, strict=True))
    assert hits + misses == REQUESTS
    assert 0 < misses < hits
    assert_books_are_right(many, books)


async def test_removing_adapters_whose_streams_are_cut_off_harms_nobody(
    many: httpx.Client, async_many: httpx.AsyncClient, books: Books
) -> None:
    """The engine processes the end of a request, of the adapter and of its files one after the other."""
    expected = await complete(async_many, NAMES[0])

    async def cut_off(name: str, seconds: float) -> None:
        body = {"model": f"{name}+{NAMES[0]}", "prompt": "<s>x", "max_tokens": 500, "ignore_eos": True}
        async with async_many.stream("POST", "/v1/completions", json=body | {"stream": True}) as reply:
            assert reply.status_code == 200
            await asyncio.sleep(seconds)

    async def remove(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        assert (await async_many.delete(f"/v1/adapters/{name}")).status_code == 204

    gone = NAMES[-30:]
    for number in range(0, 30, 5):
        some = gone[number : number + 5]
        seconds = number / 100
        await asyncio.gather(*(cut_off(n, seconds) for n in some), *(remove(n, seconds + 0.05) for n in some))
        assert_same_answer(await complete(async_many, NAMES[0]), expected)
    for _ in range(100):
        if not many.get("/v1/residency").json()["active"]["compositions"]:
            break
        await asyncio.sleep(0.05)
    assert_books_are_right(many, books)
    kept = {
        adapter["id"].partition("@")[0] for adapter in many.get("/v1/residency").json()["host"]["adapters"]
    }
    assert not kept & set(gone)


async def test_half_the_memory_can_be_pinned_and_is_never_evicted(
    many: httpx.Client, async_many: httpx.AsyncClient, books: Books
) -> None:
    pinned = NAMES[100 : 100 + IN_MEMORY // 2]
    for name in pinned:
        many.put(f"/v1/adapters/{name}/pin").raise_for_status()
    refused = many.put(f"/v1/adapters/{NAMES[50]}/pin")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "pins_exhausted")
    built = counter(many, PREPARED)
    await asyncio.gather(*(complete(async_many, name) for name in NAMES[:60]))
    assert counter(many, PREPARED) > built
    built = counter(many, PREPARED)
    for name in pinned:
        await complete(async_many, name)
    assert counter(many, PREPARED) == built
    for name in pinned:
        many.delete(f"/v1/adapters/{name}/pin").raise_for_status()
    assert_books_are_right(many, books)


async def test_fusing_and_restoring_under_evictions_keeps_every_answer(
    many: httpx.Client, async_many: httpx.AsyncClient, books: Books
) -> None:
    models = ["testbed-base", *NAMES[:160:4]]
    alone = {model: await complete(async_many, model) for model in models}
    for fused in (NAMES[3], f"{NAMES[40]}+{NAMES[8]}:0.5"):
        running = [asyncio.create_task(complete(async_many, model)) for model in models]
        (await async_many.put("/v1/fusion", json={"model": fused})).raise_for_status()
        running += [asyncio.create_task(complete(async_many, model)) for model in models]
        for model, task in zip(models * 2, running, strict=True):
            assert_same_answer(await task, alone[model])
    (await async_many.delete("/v1/fusion")).raise_for_status()
    assert (await complete(async_many, "testbed-base"))["logprobs"] == alone["testbed-base"]["logprobs"]
    assert_books_are_right(many, books)
