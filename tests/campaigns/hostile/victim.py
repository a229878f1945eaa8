"""The victim: a tenant with a steady open loop of streams from a stack of two adapters."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from lora_compose.benchmarks.client import open_client
from lora_compose.benchmarks.serving.expected_answers import Expected, ask_alone
from lora_compose.benchmarks.serving.load import Sending, body, prompt_pool, send_pass, words_of
from lora_compose.benchmarks.serving.results.plan import Plan
from lora_compose.server.client.http import Client

MODEL = "roll+upper:0.5"
RATE = 6.0
PROMPT_TOKENS, OUTPUT_TOKENS, POOL = 32, 24, 8
CONNECTIONS = 256
TIMED = 5
WARM_UP = 32


@dataclass(frozen=True)
class Victim:
    """The victim's client. `expected` has the answers that the server gave without other traffic."""

    http: httpx.AsyncClient
    pool: list[list[int]]
    expected: list[Expected]

    async def window(self, seconds: float, seed: str) -> list[dict[str, Any]]:
        """Send requests at Poisson times for `seconds`. Rows with a wrong answer are marked as failed."""
        draw = random.Random(seed)
        due, sendings = draw.expovariate(RATE), list[Sending]()
        while due < seconds:
            prompt = draw.randrange(POOL)
            request = body(MODEL, self.pool[prompt], OUTPUT_TOKENS, f"{seed}/{len(sendings)}")
            sendings.append(Sending(request, prompt=prompt, due=due))
            due += draw.expovariate(RATE)
        rows, _ = await send_pass(self.http, sendings, None)
        for row in rows:
            if row.failure is None and not self.expected[row.prompt].accepts(row.ids):
                row.failure = "wrong_answer"
        return [_plain(row.model_dump()) for row in rows]


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row for the result: rounded, and without the tokens."""
    kept = {name: value for name, value in row.items() if name not in ("ids", "composition")}
    kept["times"] = [round(when, TIMED) for when in row["times"]]
    return kept | {name: round(row[name], TIMED) for name in ("due", "sent", "ended")}


@asynccontextmanager
async def victim(url: str, key: str, seed: int) -> AsyncIterator[Victim]:
    """A victim that knows the expected answers. They are requested before any other traffic."""
    plan = Plan(prompt_tokens=PROMPT_TOKENS, output_tokens=OUTPUT_TOKENS, pool=POOL, seed=seed)
    with Client(url, key) as client:
        pool = prompt_pool(plan, words_of(client, "testbed-base"))
    async with open_client(url, CONNECTIONS, key) as http:
        expected = await ask_alone(http, MODEL, pool, OUTPUT_TOKENS)
        made = Victim(http, pool, expected)
        await made.window(WARM_UP / RATE, f"{seed}/warm-up")
        yield made
