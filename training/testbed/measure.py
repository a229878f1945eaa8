"""Measure the testbed by exact match on held-out words: the base, each adapter, and every stack of two.

Offline, by PEFT with several adapters active, which adds their deltas exactly, as a server's stack must.
A number is the share of prompts answered exactly right: content by the stack's skill, form by all its styles.

Ask a model many user messages at once, greedily, and read what it says.

What was done and measured, in one JSON file beside the weights: settings, seconds, versions, scores.
"""

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final

import torch
import typer
from peft import PeftModel
from rich.progress import track
from transformers import AutoModelForCausalLM, AutoTokenizer

from lora_compose.training.data.layouts import Message
from lora_compose.training.evaluation.models import LocalModel
from lora_compose.training.testbed.corpus import CAPITALS, OPERATIONS
from lora_compose.training.testbed.language import PLAIN, SKILLS, STYLES, answer, held_out_words, prompts
from lora_compose.training.testbed.paths import ADAPTERS_DIR, BASE_DIR

LONGEST_ANSWER = 40
"""Tokens, that is letters; the longest right answer of the testbed has fewer."""


def ask(model: Any, tokenizer: Any, messages: Sequence[str]) -> list[str]:
    """One greedy answer a user message, in order."""
    prompts: list[list[Message]] = [[{"role": "user", "content": text}] for text in messages]
    return LocalModel(model, tokenizer).answer(prompts, LONGEST_ANSWER)


def accuracy(answers: Sequence[str], expected: Sequence[str]) -> float:
    """Share of exact matches."""
    return sum(a == b for a, b in zip(answers, expected, strict=True)) / len(expected)


PACKAGES: Final = ("torch", "transformers", "tokenizers", "peft", "trl", "datasets")


def read_record(file: Path) -> dict[str, Any]:
    """The whole record; empty where there is none yet."""
    record: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return record


def write_record(file: Path, section: str, facts: dict[str, Any]) -> None:
    """Replaces one section and leaves the others."""
    record = read_record(file) | {section: facts, "versions": {name: version(name) for name in PACKAGES}}
    file.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


@dataclass(frozen=True)
class Stack:
    """A skill or none, and styles: the adapters to add at weight one each."""

    skill: str | None
    styles: tuple[str, ...]

    @property
    def adapters(self) -> list[str]:
        return [*([self.skill] if self.skill else []), *self.styles]

    @property
    def label(self) -> str:
        return "+".join(self.adapters)


def all_stacks(adapters: Sequence[str]) -> list[Stack]:
    """Every adapter alone, every skill with every style, every two styles, of those in `adapters`."""
    skills = [name for name in SKILLS if name in adapters]
    styles = [name for name in STYLES if name in adapters]
    return [
        *(Stack(skill, ()) for skill in skills),
        *(Stack(None, (style,)) for style in styles),
        *(Stack(skill, (style,)) for skill in skills for style in styles),
        *(Stack(None, pair) for pair in itertools.combinations(styles, 2)),
    ]


class AdaptedBase:
    """The base with any of its adapters active."""

    def __init__(self, base: Path, adapters: Path) -> None:
        self.names = sorted(path.parent.name for path in adapters.glob("*/adapter_config.json"))
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        first, *rest = self.names
        self.model = PeftModel.from_pretrained(model, adapters / first, adapter_name=first)
        for name in rest:
            self.model.load_adapter(adapters / name, adapter_name=name)

    def ask(self, adapters: Sequence[str], messages: Sequence[str]) -> list[str]:
        """Greedy answers with exactly `adapters` active, none of them being the bare base."""
        if not adapters:
            with self.model.disable_adapter():
                return ask(self.model, self.tokenizer, messages)
        self.model.base_model.set_adapter(list(adapters))
        return ask(self.model, self.tokenizer, messages)

    def accuracy(self, stack: Stack, n: int, seed: int) -> float:
        asked = prompts(n, seed, stack.skill)
        expected = [answer(stack.skill, stack.styles, word) for _, word in asked]
        return accuracy(self.ask(stack.adapters, [text for text, _ in asked]), expected)

    def delta_norm(self, name: str) -> float:
        """Frobenius norm of all the adapter's deltas together."""
        squares = [
            float(layer.get_delta_weight(name).detach().square().sum())
            for layer in self.model.modules()
            if hasattr(layer, "lora_A") and name in layer.lora_A
        ]
        return math.sqrt(sum(squares))


def general_cells(n: int, seed: int) -> Iterator[tuple[str, list[str], list[str]]]:
    """Label, user messages and right answers of all that the base was taught."""
    words = held_out_words(n, seed)
    for name, operation in OPERATIONS.items():
        yield name, [f"{name} {word}" for word in words], [operation(word) for word in words]
    for style in STYLES.values():
        yield style.tag, [f"{style.tag} {PLAIN} {word}" for word in words], [style.apply(w) for w in words]
    yield "capital", [f"capital {name}" for name in CAPITALS], list(CAPITALS.values())


def measure(testbed: AdaptedBase, n: int, seed: int) -> dict[str, Any]:
    """Accuracies by label: the base's operations, tags and facts, the base at each skill, and every stack."""
    base = {label: accuracy(testbed.ask([], asked), right) for label, asked, right in general_cells(n, seed)}
    for skill in SKILLS:
        asked = prompts(n, seed, skill)
        right = [answer(skill, (), word) for _, word in asked]
        base[skill] = accuracy(testbed.ask([], [text for text, _ in asked]), right)
    stacks = {
        stack.label: testbed.accuracy(stack, n, seed)
        for stack in track(all_stacks(testbed.names), description="asking")
    }
    norms = {name: round(testbed.delta_norm(name), 2) for name in testbed.names}
    return {"n": n, "seed": seed, "base": base, "stacks": stacks, "delta_norm": norms}


def main(
    base: Annotated[Path, typer.Option(help="Directory of the base.", exists=True)] = BASE_DIR,
    adapters: Annotated[Path, typer.Option(help="Directory of adapters.", exists=True)] = ADAPTERS_DIR,
    n: Annotated[int, typer.Option("--n", min=1, help="Prompts a cell.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the held-out words that are asked.")] = 1000,
) -> None:
    """Ask the base, every adapter and every stack of two, and record the shares of exact answers.

    Writes the section `accuracy` of measured.json beside the adapters' directory (a minute on two cores).
    """
    found = measure(AdaptedBase(base, adapters), n, seed)
    file = adapters.parent / "measured.json"
    write_record(file, "accuracy", found)
    for label, share in found["stacks"].items():
        typer.echo(f"{share:5.2f}  {label}")
    typer.echo(f"{file}: {len(found['stacks'])} stacks at {n} prompts each")


if __name__ == "__main__":
    typer.run(main)
