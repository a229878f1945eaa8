"""Runs vLLM's own `vllm.benchmarks.serve` in a child process.

One process is used for all runs, because importing vLLM takes ten seconds. The child runs a short program
and reads its arguments as lines of JSON, so this package does not import vLLM.
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
from lora_compose.server.client.tied import tied

DONE = "vllm bench: done"
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
    """A closed loop: `requests` requests of fixed length, `concurrency` of them in flight."""

    model: str
    concurrency: int
    requests: int
    prompt_tokens: int
    output_tokens: int
    seed: int


@dataclass(frozen=True)
class VllmBench:
    """The child process, and the folder it writes to."""

    process: "subprocess.Popen[str]"
    folder: Path

    def run(self, url: str, tokenizer: str, load: ClosedLoop, extra: Sequence[str] = ()) -> dict[str, Any]:
        """Run one load. Returns vLLM's result object.

        Raises LoraComposeError "referee_failed" if the process ended instead.
        """
        file = self.folder / "result.json"
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        arguments = [*_arguments(url, tokenizer, load), "--result-dir", str(self.folder), *extra]
        self.process.stdin.write(json.dumps([*arguments, "--result-filename", file.name]) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.strip() == DONE:
                result: dict[str, Any] = json.loads(file.read_text())
                return result
        end = (self.folder / "vllm-bench.log").read_text(errors="replace")[-2000:]
        raise LoraComposeError(CommandCode.REFEREE_FAILED, f"vllm.benchmarks.serve ended early:\n{end}")


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
def started(folder: Path) -> Iterator[VllmBench]:
    """Runs the child process until the context closes."""
    with (folder / "vllm-bench.log").open("wb") as log:
        process = subprocess.Popen(
            tied([sys.executable, "-c", PROGRAM]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    with process:
        try:
            yield VllmBench(process, folder)
        finally:
            process.terminate()
