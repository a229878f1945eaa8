"""`python -m lora_compose.benchmarks.serving` is `lora-compose bench serve`."""

import signal

import typer

from lora_compose.benchmarks.serving.cli import VLLM_OPTIONS, serve

if __name__ == "__main__":
    # The servers run in their own sessions. Turn SIGTERM into Ctrl-C, so that the servers are stopped too.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    program = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    program.command(context_settings=VLLM_OPTIONS)(serve)
    program(prog_name="lora-compose bench serve")
