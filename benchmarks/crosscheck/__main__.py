"""`python -m lora_compose.benchmarks.crosscheck` runs the comparison with vLLM's own benchmark."""

import signal

import typer

from lora_compose.benchmarks.crosscheck.crosscheck import crosscheck

if __name__ == "__main__":
    # The server runs in its own session. Turn SIGTERM into Ctrl-C, so that the server is stopped too.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    typer.run(crosscheck)
