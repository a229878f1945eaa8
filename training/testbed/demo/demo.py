"""The main job, start to end: serve the embedded base, register adapters, stack and merge them, compare.

    python -m lora_compose.training.testbed.demo.demo            # start, ask, print a table, stop; exit code 0 if all worked
    python -m lora_compose.training.testbed.demo.demo --serve    # start, register, print what to try, stay until Ctrl-C

Speaks HTTP only. Every answer is checked exactly, by `tasks.py`.
"""

import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from platformdirs import user_log_path
from rich.console import Console
from rich.progress import Progress

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.server.client.chat import ChatClient, ChatQuestion
from lora_compose.server.client.http import Client
from lora_compose.server.client.process import COMMAND, ServerProcess
from lora_compose.training.testbed.demo.table import (
    ADAPTERS,
    ARMS,
    SKILL,
    DemoRequest,
    DemoResult,
    outcome_table,
)
from lora_compose.training.testbed.language import prompts
from lora_compose.training.testbed.paths import ADAPTERS_DIR

API_KEY = (os.environ.get("LORA_COMPOSE_API_KEY") or "").split(" ")[0] or None
SEED = 7
LONGEST_ANSWER = 40
"""Tokens, that is letters."""
DEFAULT_PORT = 8000

console = Console(width=None if sys.stdout.isatty() else 120)


def register(url: str, names: Sequence[str]) -> None:
    """Register adapters of `ADAPTERS_DIR`, each under its directory's name."""
    with Client(url, API_KEY) as client:
        for name in names:
            adapter = client.register({"name": name, "path": str(ADAPTERS_DIR / name)})
            console.print(f"  registered {adapter['id']}, rank {adapter['rank']}, {adapter['bytes']:,} bytes")


def try_arm(client: ChatClient, base: str, arm: DemoRequest, asked: Sequence[tuple[str, str]]) -> DemoResult:
    """Ask an arm every (prompt, word), one at a time. What the server refuses is part of the outcome."""
    outcome = DemoResult(arm, [word for _, word in asked])
    for prompt, _ in asked:
        question = ChatQuestion(prompt, arm.model or base, max_tokens=LONGEST_ANSWER, fields=arm.body)
        try:
            outcome.answers.append(client.stream(question))
        except LoraComposeError as error:
            outcome.error = error.message
            break
    return outcome


def compare(url: str, count: int) -> list[DemoResult]:
    """Every arm, asked the same `count` prompts."""
    asked = prompts(count, SEED, SKILL)
    with ChatClient(url, API_KEY) as client, Progress(console=console) as bar:
        base = client.base_model()
        arms = bar.track(ARMS, description=f"asking {len(ARMS)} arms {count} questions each")
        return [try_arm(client, base, arm, asked) for arm in arms]


def demo(count: int) -> int:
    """The exit code: 0 if every arm answered and every stack does both on more than half of the prompts."""
    with tempfile.TemporaryDirectory(prefix="lora-compose-demo-") as home:
        options = ["--data-dir", f"{home}/data", "--adapter-root", str(ADAPTERS_DIR)]
        with ServerProcess.serve(options, Path(home, "server.log")) as server:
            wait_for(server)
            console.print(f"serving on {server.url}")
            register(server.url, ADAPTERS)
            outcomes = compare(server.url, count)
            console.print("stopping the server")
    console.print(outcome_table(outcomes))
    failed = [outcome for outcome in outcomes if not outcome.worked]
    for outcome in failed:
        console.print(
            f"[red]failed:[/] {outcome.arm.label}: {outcome.error or 'too few right answers'}", markup=True
        )
    return 1 if failed else 0


def serve(port: int) -> int:
    """Stay in front of a server on the default data directory. Returns, with 1, only if the server ends."""
    log = user_log_path("lora-compose") / "serve.log"
    log.unlink(missing_ok=True)
    with ServerProcess.serve(["--adapter-root", str(ADAPTERS_DIR)], log, port) as server:
        wait_for(server)
        register(server.url, sorted(path.name for path in ADAPTERS_DIR.iterdir()))
        print_what_to_try(server.url, log)
        code = server.process.wait()
    console.print(f"The server ended with code {code}; see {log}")
    return 1


def wait_for(server: ServerProcess) -> None:
    """Show that the server is starting until it is ready."""
    with console.status("starting vLLM on the embedded base (25 to 50 s)"):
        server.wait_until_ready()


def print_what_to_try(url: str, log: Path) -> None:
    """Commands that work when they are pasted into another terminal."""
    command = os.path.relpath(COMMAND) if Path(COMMAND).is_relative_to(Path.cwd()) else shlex.quote(COMMAND)
    at = "" if url.endswith(f":{DEFAULT_PORT}") else f" --url {url}"
    key = "" if API_KEY is None else ' -H "authorization: Bearer $LORA_COMPOSE_API_KEY"'
    question = '"messages": [{"role": "user", "content": "roll table"}], "temperature": 0'
    post = f"curl -s {url}/v1/chat/completions -H 'content-type: application/json'{key}"
    lines = [
        f"Serving on {url}; its log is {log}. Ctrl-C stops it. In another terminal:",
        "",
        f"{command} ask 'say table'{at}",
        f"{command} ask 'roll table' --adapters roll+upper{at}",
        f"{command} ask 'roll table' --adapters roll+upper --method svd --rank 8{at}",
        f"{command} adapters list{at}",
        f"curl -s {url}/v1/models{key}",
        f'{post} -d \'{{"model": "roll+polite", {question}}}\'',
    ]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def main(
    stay: Annotated[bool, typer.Option("--serve", help="Leave a server running until Ctrl-C.")] = False,
    port: Annotated[int, typer.Option(help="Where --serve listens.")] = DEFAULT_PORT,
    count: Annotated[int, typer.Option("--prompts", min=2, help="Questions to each arm.")] = 16,
) -> None:
    """Show the main job on the embedded base."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        code = serve(port) if stay else demo(count)
    except LoraComposeError as error:
        console.print(f"failed: {error}", markup=False, style="red")
        code = 1
    except KeyboardInterrupt:
        code = 0 if stay else 128 + signal.SIGINT
    raise typer.Exit(code)


if __name__ == "__main__":
    typer.run(main)
