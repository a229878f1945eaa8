"""Measures the same cells with our benchmark and with vLLM's own, on one server, and compares the results.

Both run closed loops. They take turns in changing order within each repeat, and both warm up with the cell's
own model. docs/crosscheck.md has the results, and what vLLM's benchmark cannot measure.
"""

import asyncio
import json
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.adapters.terminal import stderr, stdout
from lora_compose.benchmarks.client import open_client
from lora_compose.benchmarks.crosscheck.verdict import METRICS, markdown, summarized, table, verdicts
from lora_compose.benchmarks.crosscheck.vllm_bench import ClosedLoop, VllmBench, started
from lora_compose.benchmarks.machine import describe
from lora_compose.benchmarks.servers import EMBEDDED_ADAPTERS, EMBEDDED_BASE, our_command, running
from lora_compose.benchmarks.serving.load import Sending, send_pass
from lora_compose.benchmarks.workload import completion_body
from lora_compose.server.client.http import Client
from lora_compose.server.client.process import free_port

BASE = "testbed-base"
CELLS = ((BASE, 1), (BASE, 4), ("roll", 1), ("roll", 4), ("roll+upper", 1), ("roll+upper", 4))
SPECIAL_TOKENS = 16
Side = Callable[[ClosedLoop], dict[str, float]]


async def our_pass(url: str, load: ClosedLoop) -> dict[str, float]:
    """Medians of one closed loop of `bench serve`, warmed up as vLLM's loop is.

    An answer ends with its last token, as in vLLM's benchmark. Raises LoraComposeError if a request fails.
    """
    draw, vocabulary = random.Random(load.seed), _vocabulary()
    sendings = [
        Sending(_body(load, draw.choices(vocabulary, k=load.prompt_tokens)), prompt=number)
        for number in range(load.requests + 2 * load.concurrency)
    ]
    async with open_client(url, load.concurrency) as client:
        await send_pass(client, sendings[load.requests :], load.concurrency)
        rows, seconds = await send_pass(client, sendings[: load.requests], load.concurrency)
    measured = []
    for row in rows:
        if row.failure:
            raise LoraComposeError(
                CommandCode.REQUEST_FAILED, f"A request for {load.model} failed: {row.failure}"
            )
        first, last = row.times[0] - row.sent, row.times[-1] - row.sent
        measured.append({"ttft": first, "e2el": last, "tokens": row.tokens})
    return summarized(measured, seconds)


def _body(load: ClosedLoop, prompt: list[int]) -> dict[str, Any]:
    return completion_body(load.model, "", load.output_tokens, stream=True) | {"prompt": prompt}


def _vocabulary() -> range:
    """Ids of ordinary tokens.

    Prompts are sent as ids, because random text can become another number of tokens.
    """
    config = json.loads((EMBEDDED_BASE / "config.json").read_text())
    return range(SPECIAL_TOKENS, int(config["vocab_size"]))


def their_pass(vllm_bench: VllmBench, url: str, load: ClosedLoop) -> dict[str, float]:
    """vLLM's medians. Raises LoraComposeError if an answer is missing or has another length."""
    result = vllm_bench.run(url, str(EMBEDDED_BASE), load)
    if result["completed"] != load.requests or set(result["output_lens"]) != {load.output_tokens}:
        raise LoraComposeError(
            CommandCode.REQUEST_FAILED,
            f"vLLM's benchmark completed {result['completed']} of {load.requests} requests, or an answer "
            f"did not have {load.output_tokens} tokens.",
        )
    names = {name: f"median_{name}" for name in METRICS if name.endswith("_ms")}
    names["output_throughput"] = "output_throughput"
    return {name: float(result[theirs]) for name, theirs in names.items()}


def measure(
    sides: dict[str, Side],
    load: Callable[[str, int, int], ClosedLoop],
    repeats: int,
    on_progress: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Measure each cell with both sides in each repeat. The side that goes first changes."""
    passes = []
    for repeat in range(repeats):
        for number, (model, concurrency) in enumerate(CELLS):
            order = list(sides) if (repeat + number) % 2 == 0 else list(reversed(sides))
            on_progress(f"{model}, {concurrency} in flight")
            medians = {side: sides[side](load(model, concurrency, repeat)) for side in order}
            passes.append({"model": model, "concurrency": concurrency, "repeat": repeat, **medians})
    return passes


@contextmanager
def server_with_adapters(home: Path) -> Iterator[str]:
    """Runs our server on the embedded base, with the adapters of the cells. Yields its URL."""
    port = free_port()
    command = our_command(port, str(EMBEDDED_BASE), home, EMBEDDED_ADAPTERS, [])
    with running(command, str(EMBEDDED_BASE), port, home / "server.log") as server:
        server.wait_until_ready()
        with Client(server.url) as client:
            for name in ("roll", "upper"):
                client.register({"name": name, "path": str(EMBEDDED_ADAPTERS / name)})
        yield server.url


def crosscheck(  # noqa: PLR0913  the options of a command
    repeats: Annotated[int, typer.Option(min=5, help="Passes over each cell by each benchmark.")] = 7,
    requests: Annotated[int, typer.Option(min=8, help="Requests in one pass.")] = 40,
    prompt_tokens: Annotated[int, typer.Option(min=4, help="Length of every prompt.")] = 32,
    output_tokens: Annotated[int, typer.Option(min=2, help="Length of every answer.")] = 32,
    seed: Annotated[int, typer.Option(help="Seed of the prompts and the intervals.")] = 0,
    output: Annotated[Path | None, typer.Option(help="Write the result here.", metavar="FILE")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
) -> None:
    """Measure the same cells with our benchmark and with `vllm.benchmarks.serve`, and compare the results.

    A server is started on the embedded base. `NO` and exit code 1: a metric differs by more than noise (the
    intervals of the medians do not overlap, and the medians differ by more than 5 %). `noise`: the intervals
    are too wide for a result, because the machine was busy.

    - `python -m lora_compose.benchmarks.crosscheck`
    - `python -m lora_compose.benchmarks.crosscheck --repeats 9 --output crosscheck.json`
    """
    config = {"prompt_tokens": prompt_tokens, "output_tokens": output_tokens, "seed": seed}

    def load(model: str, concurrency: int, repeat: int) -> ClosedLoop:
        return ClosedLoop(model, concurrency, requests, prompt_tokens, output_tokens, seed + repeat)

    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lora-compose-bench-")))
        url = stack.enter_context(server_with_adapters(home))
        process = stack.enter_context(started(home))
        sides: dict[str, Side] = {
            "ours": lambda cell: asyncio.run(our_pass(url, cell)),
            "theirs": lambda cell: their_pass(process, url, cell),
        }
        on_progress = stack.enter_context(_progress_bar(repeats * len(CELLS)))
        passes = measure(sides, load, repeats, on_progress)
    config |= {"repeats": repeats, "requests": requests}
    document = {"machine": describe(), "config": config, "passes": passes}
    if output is not None:
        output.write_text(json.dumps(document) + "\n")
    _show(document, as_json=as_json, as_markdown=as_markdown)
    raise typer.Exit(0 if all(verdict.agrees for verdict in verdicts(document)) else 1)


@contextmanager
def _progress_bar(total: int) -> Iterator[Callable[[str], None]]:
    from rich.progress import Progress

    with Progress(console=stderr(), transient=True) as progress:
        task = progress.add_task("starting", total=total + 1)
        yield lambda cell: progress.update(task, advance=1, description=cell)


def _show(document: dict[str, Any], *, as_json: bool, as_markdown: bool) -> None:

    if as_json:
        typer.echo(json.dumps(document))
    elif as_markdown:
        typer.echo(markdown(document))
    else:
        stdout().print(table(document))
