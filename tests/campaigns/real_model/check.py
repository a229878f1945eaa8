"""Compare a served SmolLM2 with transformers and PEFT, in float32 and bfloat16.

In float32, a stack must be PEFT's `cat`, a fused composition must be the stack, and a greedy answer must be
transformers' own. Where a greedy answer differs, the lead of the most likely token at that place is written
down: below `NOISE` both tokens are equally right. In bfloat16, single log-probabilities depend on the order
of additions. There, the server must be as near to the float32 model as PEFT in bfloat16 is. A restored base
must be the same to the bit in both.

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
TIMES_PEFT = 1.25
"""The bound in bfloat16: the mean distance from the float32 model, as a multiple of PEFT's."""


def composition(weights: Weights) -> str:
    """The stack as the name of a model."""
    return "+".join(f"{name}:{weight:g}" for name, weight in weights.items())


def largest(first: torch.Tensor, second: torch.Tensor) -> float:
    """The largest difference of two rows of log-probabilities."""
    return float((first.double() - second.double()).abs().max())


def mean(first: torch.Tensor, second: torch.Tensor) -> float:
    """The mean difference of two rows of log-probabilities."""
    return float((first.double() - second.double()).abs().mean())


@dataclass(frozen=True)
class Pair:
    """A server and the reference, with the tokens that both are asked about."""

    served: Served
    client: Client
    reference: Reference
    exact: Reference
    """The reference in float32."""
    ids: Sequence[Sequence[int]]

    def stacks(self) -> dict[str, dict[str, float]]:
        """Every stack beside PEFT's `cat` of the same type, and both beside float32. No stack is the base."""
        found = {}
        for weights in ({}, *STACKS):
            name = composition(weights) or BASE
            ours, peft = self._all(name), self._right(self.reference, weights)
            right = self._right(self.exact, weights)
            found[name] = {
                "largest": largest(ours, peft),
                "mean": mean(ours, peft),
                "mean_from_float32": mean(ours, right),
                "peft_mean_from_float32": mean(peft, right),
            }
        return found

    def fusion(self, weights: Weights) -> dict[str, Any]:
        """The largest difference between the fused composition and its stack, its mean distance from float32,
        and whether the base is the same to the bit after it was restored."""
        name = composition(weights)
        base, stack = self._all(BASE), self._all(name)
        self.client.fuse(name)
        fused = self._all(name)
        self.client.restore_base()
        restored = self._all(BASE)
        return {
            "fused": largest(stack, fused),
            "mean_from_float32": mean(fused, self._right(self.exact, weights)),
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

    def _right(self, reference: Reference, weights: Weights) -> torch.Tensor:
        with reference.stacked(weights):
            return torch.cat([reference.logprobs(row) for row in self.ids])


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
        exact = reference if dtype == "float32" else Reference(resolve(BASE), adapters, NAMES, torch.float32)
        pair = Pair(Served(url), client, reference, exact, ids)
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
        found += _of_float32(result) if dtype == "float32" else _of_bfloat16(result)
        found += [
            f"{dtype}: the base is not the same after {name} was fused"
            for name, fusion in result["fusions"].items()
            if not fusion["restored_exactly"]
        ]
    return found


def _of_float32(result: dict[str, Any]) -> list[str]:
    found = [
        f"float32: {name} differs by {stack['largest']:.2g}"
        for name, stack in result["stacks"].items()
        if not stack["largest"] <= BOUND
    ]
    found += [
        f"float32: fused {name} differs by {fusion['fused']:.2g} from its stack"
        for name, fusion in result["fusions"].items()
        if not fusion["fused"] <= BOUND
    ]
    found += [
        f"float32: greedy chat {one['chat']} differs at token {one['token']}"
        for one in result["greedy"]["differences"]
        if not one["lead"] <= NOISE
    ]
    return found


def _of_bfloat16(result: dict[str, Any]) -> list[str]:
    stacks = result["stacks"]
    found = [_too_far(name, stack["mean_from_float32"], stack) for name, stack in stacks.items()]
    found += [
        _too_far(f"fused {name}", fusion["mean_from_float32"], stacks[name])
        for name, fusion in result["fusions"].items()
    ]
    return [line for line in found if line]


def _too_far(name: str, distance: float, stack: dict[str, float]) -> str:
    """A sentence if `distance` is above TIMES_PEFT of PEFT's own distance from float32."""
    peft = stack["peft_mean_from_float32"]
    if distance <= TIMES_PEFT * peft:
        return ""
    return f"bfloat16: {name} is {distance:.2g} from float32 in the mean, PEFT {peft:.2g}"


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
