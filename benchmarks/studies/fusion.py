"""`python -m lora_compose.benchmarks.studies.fusion` measures what fusing gains, and what it costs other
requests.

Each round measures every model, fuses, measures every model again, and restores the base. Ratios are computed
within a round. Then the base is fused and restored many times under traffic, and every answer is checked.
"""

import asyncio
import random
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import httpx
import typer

from lora_compose.benchmarks.checks import BoundCheck, at_least, at_most, show
from lora_compose.benchmarks.client import open_client
from lora_compose.benchmarks.servers import EMBEDDED_ADAPTERS, EMBEDDED_BASE, our_command, running
from lora_compose.benchmarks.serving.load import Sending, send_pass
from lora_compose.benchmarks.workload import Prompts, completion_body
from lora_compose.server.client.process import free_port

CONCURRENCY = 8
TOKENS = 128
BASE, FUSED = "testbed-base", "roll+upper"
OTHERS = ("polite", "dbl+bang", "roll")
MODELS = (BASE, FUSED, *OTHERS)
PROMPT = "<s><|user|>roll table<|assistant|>"


async def throughput(client: httpx.AsyncClient, model: str, prompts: Prompts) -> float:
    """Output tokens a second in a closed loop. Raises RuntimeError if a request fails."""
    texts = prompts.take(2 * CONCURRENCY, 32)
    sendings = [Sending(completion_body(model, text, TOKENS, stream=False)) for text in texts]
    rows, seconds = await send_pass(client, sendings, CONCURRENCY)
    failed = [row.failure for row in rows if row.failure]
    if failed:
        raise RuntimeError(f"A request for {model} failed: {failed[0]}")
    return sum(row.tokens for row in rows) / seconds


async def answer(client: httpx.AsyncClient, model: str) -> tuple[str, list[float]]:
    """A greedy answer and the log-probabilities of its tokens."""
    body = {"model": model, "prompt": PROMPT, "max_tokens": 12, "temperature": 0, "logprobs": 1}
    reply = await client.post("/v1/completions", json=body)
    reply.raise_for_status()
    choice = reply.json()["choices"][0]
    return choice["text"], choice["logprobs"]["token_logprobs"]


def difference(first: tuple[str, list[float]], second: tuple[str, list[float]]) -> float:
    """The largest difference of the log-probabilities. Infinite if the texts differ."""
    if first[0] != second[0]:
        return float("inf")
    return max(abs(a - b) for a, b in zip(first[1], second[1], strict=True))


async def measure(client: httpx.AsyncClient, rounds: int) -> dict[str, Any]:
    """Throughput of each model unfused and fused, seconds of the switches, and the largest difference of
    answers.
    """
    prompts = Prompts(0)
    plain: dict[str, list[float]] = {model: [] for model in MODELS}
    fused: dict[str, list[float]] = {model: [] for model in MODELS}
    stalls: list[float] = []
    largest_difference = 0.0
    for model in MODELS:
        await throughput(client, model, prompts)
    for _ in range(rounds):
        before = [await answer(client, model) for model in MODELS]
        for model in MODELS:
            plain[model].append(await throughput(client, model, prompts))
        switched = await client.put("/v1/fusion", json={"model": FUSED})
        stalls.append(switched.raise_for_status().json()["last_switch"]["stalled_seconds"])
        after = [await answer(client, model) for model in MODELS]
        largest_difference = max(largest_difference, *map(difference, after, before))
        for model in MODELS:
            fused[model].append(await throughput(client, model, prompts))
        await _restore(client)
        plain[BASE].append(await throughput(client, BASE, prompts))
    return {"plain": plain, "fused": fused, "stalls": stalls, "largest_difference": largest_difference}


async def _restore(client: httpx.AsyncClient) -> None:
    (await client.delete("/v1/fusion")).raise_for_status()


async def switch_under_traffic(client: httpx.AsyncClient, switches: int) -> dict[str, Any]:
    """Fuse and restore while clients send requests. Every answer is compared with the unfused one."""
    expected = {model: await answer(client, model) for model in MODELS}
    done = asyncio.Event()
    served, wrong = 0, 0

    async def send_requests(seed: int) -> None:
        nonlocal served, wrong
        draw = random.Random(seed)
        while not done.is_set():
            model = draw.choice(MODELS)
            try:
                wrong += difference(await answer(client, model), expected[model]) > 1e-3
            except httpx.HTTPError:
                wrong += 1
            served += 1

    clients = [asyncio.create_task(send_requests(seed)) for seed in range(6)]
    for number in range(switches):
        model = (FUSED, *OTHERS)[number % 4]
        (await client.put("/v1/fusion", json={"model": model})).raise_for_status()
        await asyncio.sleep(0.1)
        await _restore(client)
    done.set()
    await asyncio.gather(*clients)
    equal = (await answer(client, BASE)) == expected[BASE]
    return {"served": served, "wrong": wrong, "bit_equal": equal}


def checks(measured: dict[str, Any], traffic: dict[str, Any], switches: int) -> list[BoundCheck]:
    """The medians of the ratios of all rounds, and the results under traffic."""
    plain, fused = measured["plain"], measured["fused"]
    # The base is measured before and after the fused passes, so that drift between them cancels out.
    bases = [(a * b) ** 0.5 for a, b in zip(plain[BASE][::2], plain[BASE][1::2], strict=True)]
    lines = [
        at_least(
            f"fused {FUSED} / plain base",
            median(f / b for f, b in zip(fused[FUSED], bases, strict=True)),
            0.97,
        ),
        BoundCheck(f"unfused {FUSED} / plain base", f"{_ratio(plain[FUSED], bases):.3f}"),
        *(
            at_least(f"{model}, while fused / unfused", _ratio(fused[model], plain[model]), 0.90)
            for model in OTHERS
        ),
        BoundCheck("base, while fused / plain", f"{_ratio(fused[BASE], bases):.3f}"),
        BoundCheck("generation was paused for", f"{median(measured['stalls']):.3f} s"),
        at_most("largest difference of a log-probability", measured["largest_difference"], 1e-3),
        at_most(
            f"wrong or failed of {traffic['served']} answers during {switches} switches",
            float(traffic["wrong"]),
            0,
        ),
        BoundCheck("base bit-equal at the end", str(traffic["bit_equal"]), "True", traffic["bit_equal"]),
    ]
    return lines


def _ratio(values: list[float], references: list[float]) -> float:
    return median(a / b for a, b in zip(values, references, strict=True))


async def study(url: str, rounds: int, switches: int) -> list[BoundCheck]:
    """Run the whole study on one server."""
    async with open_client(url, 2 * CONCURRENCY) as client:
        for path in sorted(EMBEDDED_ADAPTERS.iterdir()):
            reply = await client.post("/v1/adapters", json={"name": path.name, "path": str(path)})
            reply.raise_for_status()
        measured = await measure(client, rounds)
        return checks(measured, await switch_under_traffic(client, switches), switches)


def fusion(
    rounds: Annotated[int, typer.Option(help="Number of rounds: measure, fuse, measure, restore.")] = 9,
    switches: Annotated[int, typer.Option(help="Number of fuses and restores under traffic.")] = 20,
) -> None:
    """Measure throughput with and without a fused composition, and check that no answer changes."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lora-compose-bench-")))
        port = free_port()
        command = our_command(port, str(EMBEDDED_BASE), home, EMBEDDED_ADAPTERS, [])
        server = stack.enter_context(running(command, str(EMBEDDED_BASE), port, home / "log"))
        server.wait_until_ready()
        results = asyncio.run(study(server.url, rounds, switches))
    show(f"fusing {FUSED}, {rounds} rounds", results, {"benchmark": "fusion", "rounds": rounds})


if __name__ == "__main__":
    typer.run(fusion)
