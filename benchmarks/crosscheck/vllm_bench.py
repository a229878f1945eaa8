"""vLLM's own `vllm.benchmarks.serve`, in one process for any number of runs: to import it takes ten seconds.

This package imports no vLLM: the process gets a short program, and its arguments as lines of JSON.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_compose.adapters.errors import CommandCode, LoraComposeError

DONE = "referee: done"
PROGRAM = f"""
import json, sys
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
for line in sys.stdin:
    main(parser.parse_args(json.loads(line)))
    print({DONE!r}, flush=True)
"""


@dataclass(frozen=True)
class ClosedLoop:
    """A closed loop: so many requests of fixed length, so many in flight."""

    model: str
    concurrency: int
    requests: int
    prompt_tokens: int
    output_tokens: int
    seed: int


@dataclass(frozen=True)
class Referee:
    """The process, and where it writes."""

    process: "subprocess.Popen[str]"
    folder: Path

    def run(self, url: str, tokenizer: str, load: ClosedLoop, extra: Sequence[str] = ()) -> dict[str, Any]:
        """vLLM's result object. Raises LoraComposeError "referee_failed" where it ended instead."""
        file = self.folder / "result.json"
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        arguments = [*_arguments(url, tokenizer, load), "--result-dir", str(self.folder), *extra]
        self.process.stdin.write(json.dumps([*arguments, "--result-filename", file.name]) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.strip() == DONE:
                found: dict[str, Any] = json.loads(file.read_text())
                return found
        end = (self.folder / "referee.log").read_text(errors="replace")[-2000:]
        raise LoraComposeError(CommandCode.REFEREE_FAILED, f"vllm.benchmarks.serve ended:\n{end}")


def _arguments(url: str, tokenizer: str, load: ClosedLoop) -> list[str]:
    lengths = ["--random-input-len", str(load.prompt_tokens), "--random-output-len", str(load.output_tokens)]
    return [
        *("--backend", "openai", "--base-url", url, "--endpoint", "/v1/completions"),
        *("--model", load.model, "--tokenizer", tokenizer, "--dataset-name", "random", *lengths),
        *("--num-prompts", str(load.requests), "--max-concurrency", str(load.concurrency)),
        *("--num-warmups", str(2 * load.concurrency), "--ignore-eos", "--temperature", "0"),
        *("--seed", str(load.seed), "--percentile-metrics", "ttft,tpot,itl,e2el"),
        *("--save-result", "--save-detailed", "--disable-tqdm"),
    ]


@contextmanager
def started(folder: Path) -> Iterator[Referee]:
    """The process, for as long as the context is open."""
    with (folder / "referee.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    with process:
        try:
            yield Referee(process, folder)
        finally:
            process.terminate()
