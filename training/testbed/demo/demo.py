"""The demo: serve the embedded base, register adapters, stack and merge them, and compare the answers.

It uses HTTP only. Every answer is checked exactly, by `table.py`.
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
from rich.progress import Progress

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.adapters.terminal import stdout
from lora_compose.server.client.chat import ChatClient, ChatQuestion
from lora_compose.server.client.http import Client
from lora_compose.server.client.process import COMMAND, ServerProcess
from lora_compose.training.testbed.demo.table import (
    ADAPTERS,
    ARMS,
    SKILL,
    DemoRequest,
    DemoResult,
    result_table,
)
from lora_compose.training.testbed.language import prompts
from lora_compose.training.testbed.paths import ADAPTERS_DIR

API_KEY = (os.environ.get("LORA_COMPOSE_API_KEY") or "").split(" ")[0] or None
SEED = 7
LONGEST_ANSWER = 40
"""Tokens of an answer, which are letters."""
DEFAULT_PORT = 8000

console = stdout()


def register(url: str, names: Sequence[str]) -> None:
    """Register adapters of `ADAPTERS_DIR` under the names of their directories."""
    with Client(url, API_KEY) as client:
        for name in names:
            adapter = client.register({"name": name, "path": str(ADAPTERS_DIR / name)})
            console.print(f"  registered {adapter['id']}, rank {adapter['rank']}, {adapter['bytes']:,} bytes")


def ask_arm(client: ChatClient, base: str, arm: DemoRequest, pairs: Sequence[tuple[str, str]]) -> DemoResult:
    """Send the prompt of every (prompt, word) to an arm, one at a time. Stop if the server refuses one."""
    result = DemoResult(arm, [word for _, word in pairs])
    for prompt, _ in pairs:
        question = ChatQuestion(prompt, arm.model or base, max_tokens=LONGEST_ANSWER, fields=arm.body)
        try:
            result.answers.append(client.stream(question))
        except LoraComposeError as error:
            result.error = error.message
            break
    return result


def compare(url: str, count: int) -> list[DemoResult]:
    """The results of every arm on the same `count` prompts."""
    pairs = prompts(count, SEED, SKILL)
    with ChatClient(url, API_KEY) as client, Progress(console=console) as bar:
        base = client.base_model()
        arms = bar.track(ARMS, description=f"{len(ARMS)} compositions, {count} prompts each")
        return [ask_arm(client, base, arm, pairs) for arm in arms]


def demo(count: int) -> int:
    """The exit code: 0 if every arm answered, and every stack gave the right answer to more than half of the
    prompts.
    """
    with tempfile.TemporaryDirectory(prefix="lora-compose-demo-") as home:
        options = ["--data-dir", f"{home}/data", "--adapter-root", str(ADAPTERS_DIR)]
        with ServerProcess.serve(options, Path(home, "server.log")) as server:
            wait_for(server)
            console.print(f"serving on {server.url}")
            register(server.url, ADAPTERS)
            results = compare(server.url, count)
            console.print("stopping the server")
    console.print(result_table(results))
    failed = [result for result in results if not result.worked]
    for result in failed:
        console.print(
            f"[red]failed:[/] {result.arm.label}: {result.error or 'too few right answers'}", markup=True
        )
    return 1 if failed else 0


def serve(port: int) -> int:
    """Run a server with the default data directory until it ends. The exit code is 1."""
    log = user_log_path("lora-compose") / "serve.log"
    log.unlink(missing_ok=True)
    with ServerProcess.serve(["--adapter-root", str(ADAPTERS_DIR)], log, port) as server:
        wait_for(server)
        register(server.url, sorted(path.name for path in ADAPTERS_DIR.iterdir()))
        print_what_to_try(server.url, log)
        code = server.process.wait()
    console.print(f"The server ended with exit code {code}. Its log is {log}")
    return 1


def wait_for(server: ServerProcess) -> None:
    """Wait until the server is ready, and show that it is starting."""
    with console.status("starting vLLM on the embedded base (25 to 50 s)"):
        server.wait_until_ready()


def print_what_to_try(url: str, log: Path) -> None:
    """Print commands to copy into another terminal."""
    command = os.path.relpath(COMMAND) if Path(COMMAND).is_relative_to(Path.cwd()) else shlex.quote(COMMAND)
    at = "" if url.endswith(f":{DEFAULT_PORT}") else f" --url {url}"
    key = "" if API_KEY is None else ' -H "authorization: Bearer $LORA_COMPOSE_API_KEY"'
    question = '"messages": [{"role": "user", "content": "roll table"}], "temperature": 0'
    post = f"curl -s {url}/v1/chat/completions -H 'content-type: application/json'{key}"
    lines = [
        f"The server listens on {url}. Its log is {log}. Press Ctrl-C to stop it. Try in another terminal:",
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
    stay: Annotated[bool, typer.Option("--serve", help="Keep the server running until Ctrl-C.")] = False,
    port: Annotated[int, typer.Option(help="Port of the server with --serve.")] = DEFAULT_PORT,
    count: Annotated[int, typer.Option("--prompts", min=2, help="Prompts for each composition.")] = 16,
) -> None:
    """Serve the embedded base, register adapters, stack and merge them, and compare the answers.

    Prints a table and stops the server. The exit code is 0 if everything worked.

    - python -m lora_compose.training.testbed.demo
    - python -m lora_compose.training.testbed.demo --serve
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        code = serve(port) if stay else demo(count)
    except LoraComposeError as error:
        console.print(f"failed: {error}", markup=False, style="red")
        code = 1
    except KeyboardInterrupt:
        code = 0 if stay else 128 + signal.SIGINT
    raise typer.Exit(code)
