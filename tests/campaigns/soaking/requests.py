"""The traffic of the soak. Each answer is kept with everything that is needed to judge it."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic, perf_counter

import httpx

from lora_compose.benchmarks.client import PATH
from lora_compose.benchmarks.serving.expected_answers import ask_alone
from lora_compose.benchmarks.serving.load import read_answer
from lora_compose.benchmarks.serving.results.document import RequestRow
from tests.campaigns.soaking.expected_state import BASE, CONTENTS, KINDS, ExpectedState

MODEL = "testbed-base"
TOKENS = 16
PROMPTS = 3
PROMPT_TOKENS = 12
CUT_SHARE = 0.08
HEADER = "x-lora-composition"


@dataclass
class Answer:
    """One request and its answer."""

    kind: str
    reference: str
    prompt: int
    sent: float
    ended: float = 0.0
    """0 if the soak ended first."""
    answered_by: str = ""
    ids: list[int] = field(default_factory=list)
    failure: str | None = None
    cut: bool = False
    """Whether the client disconnected on purpose."""


def prompts(seed: int) -> list[list[int]]:
    """A few prompts of ordinary tokens."""
    draw = random.Random(f"{seed}/prompts")
    return [draw.choices(range(5, 250), k=PROMPT_TOKENS) for _ in range(PROMPTS)]


async def learn(http: httpx.AsyncClient, known: ExpectedState, pool: Sequence[Sequence[int]]) -> None:
    """Request every composition once, alone, and store the expected answers in `known`."""
    models = {(kind, content): form.format(content) for kind, form in KINDS.items() for content in CONTENTS}
    for (kind, content), model in {**models, (BASE, BASE): MODEL}.items():
        for number, answer in enumerate(await ask_alone(http, model, pool, TOKENS)):
            known.truth[kind, content, number] = answer


@dataclass
class Requester:
    """A client that sends one request after another."""

    http: httpx.AsyncClient
    known: ExpectedState
    pool: Sequence[Sequence[int]]
    draw: random.Random
    answers: list[Answer]
    pause: float = 0.2

    async def run(self) -> None:
        """Send requests until cancelled."""
        while True:
            await self.send()
            await asyncio.sleep(self.draw.uniform(0.5, 1.5) * self.pause)

    async def send(self) -> None:
        """Send one request of a random kind, streamed or not."""
        kind = self.draw.choice([BASE, *KINDS])
        reference = BASE if kind == BASE else self.draw.choice(self.known.references())
        model = MODEL if kind == BASE else KINDS[kind].format(reference)
        answer = Answer(kind, reference, self.draw.randrange(PROMPTS), monotonic())
        answer.cut = self.draw.random() < CUT_SHARE
        body = {
            "model": model,
            "prompt": self.pool[answer.prompt],
            "max_tokens": TOKENS,
            "temperature": 0,
            "ignore_eos": True,
            "return_token_ids": True,
        }
        streamed = {"stream": True, "stream_options": {"include_usage": True}}
        body |= streamed if answer.cut or self.draw.random() < 0.5 else {}
        self.answers.append(answer)
        try:
            await self._take(body, answer)
        except httpx.HTTPError as error:
            answer.failure = type(error).__name__
        answer.ended = monotonic()

    async def _take(self, body: dict[str, object], answer: Answer) -> None:
        async with self.http.stream("POST", PATH, json=body) as reply:
            answer.answered_by = reply.headers.get(HEADER, "")
            if not reply.is_success:
                await reply.aread()
                answer.failure = f"{reply.status_code} {reply.json()['error']['code']}"
            elif "stream" in body:
                await _read_stream(reply, answer)
            else:
                await reply.aread()
                answer.ids = reply.json()["choices"][0]["token_ids"]


async def _read_stream(reply: httpx.Response, answer: Answer) -> None:
    lines = []
    async for line in reply.aiter_lines():
        if line:
            lines.append((perf_counter(), line))
        if answer.cut and len(lines) == 3:
            return
    row = RequestRow(i=0, composition=0, prompt=0, due=0.0, sent=0.0)
    read_answer(row, lines)
    answer.ids, answer.failure = row.ids, row.failure
