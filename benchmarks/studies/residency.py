"""`python -m lora_compose.benchmarks.studies.residency` measures the cost of new stacks, new weights and few
slots.

It compares the first tokens of new stacks with those of used stacks, sends a thousand weightings of the same
members, and sends Zipf traffic for hundreds of adapters to a server with a few slots.
"""

import asyncio
import itertools
import random
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Annotated

import httpx
import numpy as np
import typer

from lora_compose.benchmarks.checks import BoundCheck, at_most, show
from lora_compose.benchmarks.client import open_client
from lora_compose.benchmarks.counters import counters
from lora_compose.benchmarks.servers import EMBEDDED_BASE, our_command, running
from lora_compose.benchmarks.serving.load import Sending, send_one, send_pass
from lora_compose.benchmarks.statistics import spread
from lora_compose.benchmarks.synthetic import write_fresh
from lora_compose.benchmarks.workload import Prompts, completion_body
from lora_compose.server.client.process import free_port

MEMBERS = 8
CLIENTS = 16
ZIPF_EXPONENT = 1.1
BUILDS = ("lora_compose_prepare_duration_seconds_count", "lora_compose_evictions_total")
PROMPT = "<s><|user|>roll table<|assistant|>"


async def first_tokens(client: httpx.AsyncClient, names: list[str], pairs: int) -> BoundCheck:
    """Request used and new stacks in turn, one at a time, with a new prompt each time."""
    prompts = Prompts(0)
    sets = [list(s) for size in (2, 3, 4) for s in itertools.combinations(names[:MEMBERS], size)]
    random.Random(0).shuffle(sets)
    seen = "+".join(sets.pop())
    for name in (*names[:MEMBERS], seen):
        await _first(client, name, prompts)
    ratios = []
    for number, members in enumerate(sets[:pairs]):
        models = [seen, "+".join(members)]
        order = models if number % 2 else models[::-1]
        times = {model: await _first(client, model, prompts) for model in order}
        ratios.append(times[models[1]] / times[seen])
        seen = models[1]
    ratio = spread(ratios, seed=0)
    assert ratio is not None
    name = (
        f"first token, new stack / used stack ({ratio.count} pairs, 95 % {ratio.low:.3f}..{ratio.high:.3f})"
    )
    return at_most(name, ratio.median, 1.1)


async def _first(client: httpx.AsyncClient, model: str, prompts: Prompts) -> float:
    (prompt,) = prompts.take(1, 32)
    row = await send_one(client, Sending(completion_body(model, prompt, 2, stream=True)))
    if row.failure or not row.times:
        raise RuntimeError(f"A request for {model} failed: {row.failure}")
    return row.times[0] - row.sent


async def weightings(client: httpx.AsyncClient, names: list[str], count: int) -> list[BoundCheck]:
    """Request random weights of the same four members. The counters show whether anything was built."""
    draw, prompts = random.Random(0), Prompts(1)
    before = await counters(client)
    models = ["+".join(f"{name}:{draw.gauss(0, 1):.4f}" for name in names[:4]) for _ in range(count)]
    bodies = [
        completion_body(model, prompt, 1, stream=False)
        for model, prompt in zip(models, prompts.take(count, 16), strict=True)
    ]
    rows, _ = await send_pass(client, list(map(Sending, bodies)), CLIENTS)
    after = await counters(client)
    return [
        at_most(f"builds during {count} weightings of four members", after[BUILDS[0]] - before[BUILDS[0]], 0),
        at_most("evictions during these", after[BUILDS[1]] - before[BUILDS[1]], 0),
        at_most("failed requests", sum(row.failure is not None for row in rows), 0),
    ]


async def zipf(client: httpx.AsyncClient, names: list[str], requests: int) -> list[BoundCheck]:
    """Send Zipf traffic. Every answer is compared with the answer of the same adapter alone."""
    draw = random.Random(0)
    weights = [1 / (rank + 1) ** ZIPF_EXPONENT for rank in range(len(names))]
    alone = {name: await _text(client, name) for name in names}
    before = await counters(client)
    waiting = iter(draw.choices(names, weights, k=requests))
    wrong, waits = 0, list[float]()

    async def worker() -> None:
        nonlocal wrong
        for name in waiting:
            began = asyncio.get_running_loop().time()
            wrong += await _text(client, name) != alone[name]
            waits.append(asyncio.get_running_loop().time() - began)

    await asyncio.gather(*(worker() for _ in range(CLIENTS)))
    after = await counters(client)
    state = (await client.get("/v1/residency")).json()
    grown = {name: after[name] - before[name] for name in after if name in before}
    agree = all(adapter["workers"] == 1 and not adapter["requests"] for adapter in state["host"]["adapters"])
    agree &= len(state["host"]["adapters"]) == after["lora_compose_prepared_adapters"] and not state["queued"]
    quantiles = " / ".join(f"{1000 * np.quantile(waits, q):.0f}" for q in (0.5, 0.99, 1.0))
    return [
        at_most(
            f"wrong or failed of {requests} answers, {len(names)} adapters, {state['active']['slots']} slots",
            wrong,
            0,
        ),
        BoundCheck("answer times p50 / p99 / longest", f"{quantiles} ms"),
        at_most("longest answer time / median", max(waits) / median(waits), 30),
        BoundCheck(
            "mean time in the queue",
            f"{1000 * grown['lora_compose_queue_duration_seconds_sum'] / requests:.1f} ms",
        ),
        BoundCheck("hits", f"{grown['lora_compose_residency_hits_total']:.0f}"),
        BoundCheck("misses", f"{grown['lora_compose_residency_misses_total']:.0f}"),
        BoundCheck("evictions", f"{grown['lora_compose_evictions_total']:.0f}"),
        BoundCheck("the scheduler, the workers and the metrics agree", str(agree), "True", agree),
    ]


async def _text(client: httpx.AsyncClient, model: str) -> str:
    body = {"model": model, "prompt": PROMPT, "max_tokens": 12, "temperature": 0}
    reply = await client.post("/v1/completions", json=body)
    if not reply.is_success:
        return f"{reply.status_code} {reply.text}"
    text: str = reply.json()["choices"][0]["text"]
    return text


async def study(url: str, paths: list[Path], pairs: int, requests: int) -> list[BoundCheck]:
    """Run the whole study on one server."""
    async with open_client(url, CLIENTS) as client:
        for path in paths:
            reply = await client.post("/v1/adapters", json={"name": path.name, "path": str(path)})
            reply.raise_for_status()
        names = [path.name for path in paths]
        return [
            await first_tokens(client, names, pairs),
            *await weightings(client, names, 1000),
            *await zipf(client, names, requests),
        ]


def residency(
    adapters: Annotated[int, typer.Option(help="Number of adapters in the Zipf traffic.")] = 200,
    slots: Annotated[int, typer.Option(help="--max-loras of the server.")] = 8,
    capacity: Annotated[int, typer.Option(help="--max-cpu-loras of the server.")] = 64,
    pairs: Annotated[int, typer.Option(help="Number of pairs of a used and a new stack.")] = 120,
    requests: Annotated[int, typer.Option(help="Number of requests of the Zipf traffic.")] = 2000,
) -> None:
    """Measure first tokens of new stacks, a thousand weightings, and Zipf traffic over few slots."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lora-compose-bench-")))
        root = home / "adapters"
        root.mkdir()
        paths = write_fresh(adapters, root)
        port = free_port()
        options = ["--max-loras", str(slots), "--max-cpu-loras", str(capacity)]
        command = our_command(port, str(EMBEDDED_BASE), home, root, options)
        server = stack.enter_context(running(command, str(EMBEDDED_BASE), port, home / "log"))
        server.wait_until_ready()
        results = asyncio.run(study(server.url, paths, pairs, requests))
    show("residency", results, {"benchmark": "residency", "adapters": adapters, "slots": slots})


if __name__ == "__main__":
    typer.run(residency)
