"""Compare a served SmolLM2 with transformers and PEFT, in float32 and bfloat16.

A stack must be PEFT's `cat`, a fused composition must be the stack, a restored base must be the same to the
bit, and a greedy answer must be transformers' own. Where a greedy answer differs, the lead of the most likely
token at that place is written down: below `NOISE` both tokens are equally right.

    python -m tests.campaigns.real_model.check --output benchmarks/results/smollm2-check.json
"""

import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from lora_compose.adapters.models.cache import resolve
from lora_compose.benchmarks.machine import describe
from lora_compose.server.client.http import Client
from lora_compose.server.client.process import ServerProcess
from lora_compose.training.testbed.smollm2.paths import ADAPTERS_DIR
from tests.campaigns.real_model.chats import Chat, chats, texts
from tests.campaigns.real_model.reference import Reference, Weights
from tests.campaigns.real_model.served import Served

BASE = "smollm2"
STACKS: tuple[Weights, ...] = (
    {"order": 1.0, "greet": 1.0},
    {"order": 0.7, "triage": 1.2},
    {"order": 0.6, "greet": 0.6, "triage": 0.5},
)
NAMES = ("order", "greet", "triage")
KV_CACHE_BYTES = 1 << 30
TEXTS = 4
MAX_TOKENS = 48
NOISE = 1e-3
"""A lead in log-probability that the order of additions can turn round in float32."""
BOUND = 1e-3
"""The largest difference of a log-probability in float32."""
TIMES_THE_BASE = 3.0
"""The bound in bfloat16, as a multiple of the difference of the base without adapters. Chosen after a run."""


def composition(weights: Weights) -> str:
    """The stack as the name of a model."""
    return "+".join(f"{name}:{weight:g}" for name, weight in weights.items())


def largest(first: torch.Tensor, second: torch.Tensor) -> float:
    """The largest difference of two rows of log-probabilities."""
    return float((first.double() - second.double()).abs().max())


@dataclass(frozen=True)
class Pair:
    """A server and the reference, with the tokens that both are asked about."""

    served: Served
    client: Client
    reference: Reference
    ids: Sequence[Sequence[int]]

    def stacks(self) -> dict[str, float]:
        """For every stack, the largest difference from PEFT's `cat`. With no stack, from the base."""
        found = {}
        for weights in ({}, *STACKS):
            name = composition(weights) or BASE
            with self.reference.stacked(weights):
                found[name] = max(
                    largest(self.served.logprobs(name, row), self.reference.logprobs(row)) for row in self.ids
                )
        return found

    def fusion(self, weights: Weights) -> dict[str, Any]:
        """The largest difference between the fused composition and its stack, and whether the base is the
        same to the bit after it was restored."""
        name = composition(weights)
        base, stack = self._all(BASE), self._all(name)
        self.client.fuse(name)
        fused = self._all(name)
        self.client.restore_base()
        restored = self._all(BASE)
        return {
            "fused": largest(stack, fused),
            "changed": largest(base, stack),
            "restored_exactly": torch.equal(base, restored),
        }

    def greedy(self, asked: Sequence[Chat]) -> dict[str, Any]:
        """How many greedy answers are those of transformers, and why the others are not."""
        answers = self.served.greedy(BASE, asked, MAX_TOKENS)
        differences = []
        with self.reference.stacked({}):
            for number, (chat, answer) in enumerate(zip(asked, answers, strict=True)):
                ids = self.reference.ids(chat, asks=True)
                right = self.reference.greedy(ids, MAX_TOKENS)
                if answer != right:
                    same = _common(answer, right)
                    lead = self.reference.lead([*ids, *right[:same]])
                    differences.append({"chat": number, "token": same, "lead": lead})
        return {"chats": len(asked), "equal": len(asked) - len(differences), "differences": differences}

    def _all(self, model: str) -> torch.Tensor:
        return torch.cat([self.served.logprobs(model, row) for row in self.ids])


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two answers have in common at their start."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(first), len(second)))


@contextmanager
def served(dtype: str, adapters: Path) -> Iterator[str]:
    """The address of a server in `dtype`, which may register these adapters."""
    with tempfile.TemporaryDirectory(prefix="lora-compose-check-") as home:
        options = ["--model", BASE, "--dtype", dtype, "--max-model-len", "2048", "--data-dir", f"{home}/data"]
        options += ["--adapter-root", str(adapters), "--kv-cache-memory-bytes", str(KV_CACHE_BYTES)]
        with ServerProcess.serve(options, Path(home, "server.log")) as server:
            server.wait_until_ready()
            yield server.url


def compare(dtype: str, adapters: Path, count: int) -> dict[str, Any]:
    """Compare a server in `dtype` with the reference in the same dtype."""
    say(f"{dtype}: starting the server")
    with served(dtype, adapters) as url, Client(url) as client:
        for name in NAMES:
            client.register({"name": name, "path": str(adapters / name)})
        reference = Reference(resolve(BASE), adapters, NAMES, getattr(torch, dtype))
        ids = [reference.ids(text, asks=False) for text in texts(TEXTS)]
        pair = Pair(Served(url), client, reference, ids)
        say(f"{dtype}: stacks")
        found: dict[str, Any] = {"tokens": sum(map(len, ids)), "stacks": pair.stacks()}
        say(f"{dtype}: {found}; fusing")
        found["fusions"] = {composition(weights): pair.fusion(weights) for weights in STACKS}
        if count:
            say(f"{dtype}: {found}; greedy answers")
            found["greedy"] = pair.greedy(chats()[:count])
    return found


def say(line: str) -> None:
    """Show progress on stderr."""
    typer.echo(f"{time.strftime('%H:%M:%S')} {line}", err=True)


def faults(results: dict[str, Any]) -> list[str]:
    """What is not as it must be, in words."""
    found = []
    for dtype, result in results.items():
        bound = BOUND if dtype == "float32" else TIMES_THE_BASE * result["stacks"][BASE]
        found += [f"{dtype}: {n} differs by {d:.2g}" for n, d in result["stacks"].items() if not d <= bound]
        for name, fusion in result["fusions"].items():
            if not fusion["fused"] <= bound:
                found.append(f"{dtype}: fused {name} differs by {fusion['fused']:.2g} from its stack")
            if not fusion["restored_exactly"]:
                found.append(f"{dtype}: the base is not the same after {name} was fused")
        for one in result.get("greedy", {}).get("differences", ()):
            if not one["lead"] <= NOISE:
                found.append(f"{dtype}: greedy chat {one['chat']} differs at token {one['token']}")
    return found


def main(
    output: Annotated[Path, typer.Option(help="Write the result here.", metavar="FILE")],
    adapters: Annotated[Path, typer.Option(help="Directory of the adapters.", exists=True)] = ADAPTERS_DIR,
    count: Annotated[int, typer.Option("--chats", min=1, max=50, help="Chats for greedy decoding.")] = 50,
) -> None:
    """Compare a served SmolLM2 with transformers and PEFT. Takes some minutes."""
    started = time.monotonic()
    results: dict[str, Any] = {}
    wrong: list[str] = []
    for dtype, chats_of_dtype in (("float32", count), ("bfloat16", 0)):
        results[dtype] = compare(dtype, adapters, chats_of_dtype)
        wrong = faults(results)
        facts = {"machine": describe(), "seconds": round(time.monotonic() - started), "results": results}
        output.write_text(json.dumps(facts | {"faults": wrong}, indent=1) + "\n")
    typer.echo(json.dumps(results, indent=1))
    for line in wrong:
        typer.echo(f"wrong: {line}")
    raise typer.Exit(1 if wrong else 0)


if __name__ == "__main__":
    typer.run(main)
