"""The demo: serve a base, register its adapters, stack and merge them, and compare the answers.

It uses HTTP only. Code judges every answer. `toy.py` and `smollm2.py` say what is served and asked.
"""

import os
import shlex
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from lora_compose.adapters.command_line import default_data_dir
from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.adapters.terminal import stdout
from lora_compose.server.client.chat import ChatClient, ChatQuestion
from lora_compose.server.client.http import Client
from lora_compose.server.client.process import COMMAND, ServerProcess, free_port
from lora_compose.training.testbed.demo.subject import DemoQuestion, DemoRequest, DemoSubject
from lora_compose.training.testbed.demo.table import DemoResult, answers_table, result_table

API_KEY = (os.environ.get("LORA_COMPOSE_API_KEY") or "").split(" ")[0] or None
DEFAULT_PORT = 8000
MODELS = {"smollm2": "SMOLLM2"}
"""Names of models with a demo of their own, and the subject in the module of that name."""

console = stdout()


def subject_of(model: str | None) -> DemoSubject:
    """What the demo of a model is about. Without a name: the embedded base."""
    if model is None:
        from lora_compose.training.testbed.demo.toy import TOY

        return TOY
    if model not in MODELS:
        names = ", ".join(MODELS)
        raise LoraComposeError(
            CommandCode.NO_MODEL,
            f"There is no demo of {model}. Use MODEL={names}, or none for the embedded base.",
        )
    module = import_module(f"lora_compose.training.testbed.demo.{model}")
    subject: DemoSubject = getattr(module, MODELS[model])
    return subject


def have_model(model: str | None) -> None:
    """Get the model into the user's cache, if it is not there. Raises LoraComposeError."""
    if model is not None:
        from lora_compose.adapters.models.cli import get_model

        get_model(model)


def register(url: str, subject: DemoSubject, names: Sequence[str]) -> None:
    """Register adapters under the names of their directories."""
    with Client(url, API_KEY) as client:
        for name in names:
            adapter = client.register({"name": name, "path": str(subject.adapters_dir / name)})
            console.print(f"  registered {adapter['id']}, rank {adapter['rank']}, {adapter['bytes']:,} bytes")


def ask_arm(
    client: ChatClient, base: str, subject: DemoSubject, arm: DemoRequest, questions: Sequence[DemoQuestion]
) -> DemoResult:
    """Send every question to an arm, one at a time. Stop if the server refuses one."""
    result = DemoResult(subject, arm, questions)
    for question in questions:
        asked = ChatQuestion(
            question.prompt, arm.model or base, max_tokens=subject.longest_answer, fields=arm.body
        )
        try:
            result.answers.append(client.stream(asked))
        except LoraComposeError as error:
            result.error = error.message
            break
    return result


def compare(url: str, subject: DemoSubject, count: int) -> list[DemoResult]:
    """The results of every arm on the same `count` questions."""
    questions = subject.questions(count)
    with ChatClient(url, API_KEY) as client, Progress(console=console) as bar:
        base = client.base_model()
        text = f"{len(subject.arms)} compositions, {len(questions)} prompts each"
        arms = bar.track(subject.arms, description=text)
        return [ask_arm(client, base, subject, arm, questions) for arm in arms]


def demo(subject: DemoSubject, count: int) -> int:
    """The exit code: 0 if every arm answered, and those that must work gave the right answer to more than
    half of the prompts.
    """
    with tempfile.TemporaryDirectory(prefix="lora-compose-demo-") as home:
        roots = ["--data-dir", f"{home}/data", "--adapter-root", str(subject.adapters_dir)]
        with ServerProcess.serve([*subject.options, *roots], Path(home, "server.log")) as server:
            wait_for(server, subject)
            console.print(f"serving on {server.url}")
            register(server.url, subject, subject.adapters)
            results = compare(server.url, subject, count)
            console.print("stopping the server")
    if subject.shows_whole_answers:
        console.print(answers_table(results))
    console.print(result_table(results))
    failed = [result for result in results if not result.worked]
    for result in failed:
        console.print(
            f"[red]failed:[/] {result.arm.label}: {result.error or 'too few right answers'}", markup=True
        )
    return 1 if failed else 0


def serve(subject: DemoSubject, port: int | None) -> int:
    """Run a server with the default data directory until it ends. The exit code is 1.

    Without `port` it listens on DEFAULT_PORT, or on another port if that one is in use."""
    port = port or port_to_use()
    log = default_data_dir() / f"serve-{port}.log"
    log.unlink(missing_ok=True)
    options = [*subject.options, "--adapter-root", str(subject.adapters_dir)]
    with ServerProcess.serve(options, log, port) as server:
        wait_for(server, subject)
        register(
            server.url,
            subject,
            sorted(path.parent.name for path in subject.adapters_dir.glob("*/adapter_config.json")),
        )
        print_what_to_try(server.url, subject, log)
        code = server.process.wait()
    console.print(f"The server ended with exit code {code}. Its log is {log}")
    return 1


def port_to_use() -> int:
    """DEFAULT_PORT if no program uses it, otherwise a free port, which is printed."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", DEFAULT_PORT))
        except OSError:
            port = free_port()
            console.print(f"port {DEFAULT_PORT} is in use by another program, so this server uses {port}")
            return port
    return DEFAULT_PORT


def wait_for(server: ServerProcess, subject: DemoSubject) -> None:
    """Wait until the server is ready, and show that it is starting."""
    with console.status(f"starting vLLM on {subject.base} (25 to 50 s)"):
        server.wait_until_ready()


def print_what_to_try(url: str, subject: DemoSubject, log: Path) -> None:
    """Print commands to copy into another terminal."""
    command = os.path.relpath(COMMAND) if Path(COMMAND).is_relative_to(Path.cwd()) else shlex.quote(COMMAND)
    at = "" if url.endswith(f":{DEFAULT_PORT}") else f" --url {url}"
    key = "" if API_KEY is None else ' -H "authorization: Bearer $LORA_COMPOSE_API_KEY"'
    prompt, _ = subject.try_prompts[-1]
    combined = next(arm.model for arm in subject.arms if arm.combines)
    question = f'"messages": [{{"role": "user", "content": "{prompt}"}}], "temperature": 0'
    post = f"curl -s {url}/v1/chat/completions -H 'content-type: application/json'{key}"
    asks = [f"{command} ask {shlex.quote(text)} {more}".rstrip() for text, more in subject.try_prompts]
    lines = [
        f"The server listens on {url}. Its log is {log}. Press Ctrl-C to stop it. Try in another terminal:",
        "",
        *(f"{line}{at}" for line in asks),
        f"{command} adapters list{at}",
        f"curl -s {url}/v1/models{key}",
        f'{post} -d \'{{"model": "{combined}", {question}}}\'',
    ]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def main(
    stay: Annotated[bool, typer.Option("--serve", help="Keep the server running until Ctrl-C.")] = False,
    port: Annotated[
        int | None,
        typer.Option(help="Port of the server with --serve. Default: 8000, or a free one if it is in use."),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option("--prompts", min=2, help="Prompts for each composition. Default: 16, or 6 on SmolLM2."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="smollm2, which is downloaded. Default: the embedded base.")
    ] = None,
) -> None:
    """Serve a base, register adapters, stack and merge them, and compare the answers.

    Prints a table and stops the server. The exit code is 0 if everything worked.

    - python -m lora_compose.training.testbed.demo
    - python -m lora_compose.training.testbed.demo --model smollm2
    - python -m lora_compose.training.testbed.demo --serve
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        subject = subject_of(model)
        have_model(model)
        code = serve(subject, port) if stay else demo(subject, count or subject.count)
    except LoraComposeError as error:
        console.print(f"failed: {error}", markup=False, style="red")
        code = 1
    except KeyboardInterrupt:
        code = 0 if stay else 128 + signal.SIGINT
    raise typer.Exit(code)
