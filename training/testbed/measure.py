"""Measure the testbed by exact matches on held-out words: the base, each adapter, and every stack of two.

Offline, with PEFT and several active adapters. PEFT adds their deltas exactly, as a server's stack must. A
score is the share of prompts that are answered exactly right, with the content of the stack's skill and the
form of all its styles. One JSON file beside the weights records settings, seconds, versions and scores.
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

from lora_compose.training.data.messages import Message
from lora_compose.training.evaluation.models import LocalModel
from lora_compose.training.evaluation.served_chat import ServedChat
from lora_compose.training.testbed.corpus import CAPITALS, OPERATIONS
from lora_compose.training.testbed.language import PLAIN, SKILLS, STYLES, answer, held_out_words, prompts
from lora_compose.training.testbed.paths import ADAPTERS_DIR, BASE_DIR

LONGEST_ANSWER = 40
"""Tokens of an answer, which are letters. The longest right answer of the testbed is shorter."""


def ask(model: Any, tokenizer: Any, messages: Sequence[str]) -> list[str]:
    """One greedy answer for each user message, in order."""
    prompts: list[list[Message]] = [[{"role": "user", "content": text}] for text in messages]
    return LocalModel(model, ServedChat.of(tokenizer, model)).answer(prompts, LONGEST_ANSWER)


def accuracy(answers: Sequence[str], expected: Sequence[str]) -> float:
    """Share of exact matches."""
    return sum(a == b for a, b in zip(answers, expected, strict=True)) / len(expected)


PACKAGES: Final = ("torch", "transformers", "tokenizers", "peft", "trl", "datasets")


def read_record(file: Path) -> dict[str, Any]:
    """The whole record. Empty if there is no file yet."""
    record: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return record


def write_record(file: Path, section: str, facts: dict[str, Any]) -> None:
    """Write one section of the record. Other sections stay."""
    record = read_record(file) | {section: facts, "versions": {name: version(name) for name in PACKAGES}}
    file.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


@dataclass(frozen=True)
class Stack:
    """The adapters of a stack, all with weight 1: at most one skill, and styles."""

    skill: str | None
    styles: tuple[str, ...]

    @property
    def adapters(self) -> list[str]:
        return [*([self.skill] if self.skill else []), *self.styles]

    @property
    def label(self) -> str:
        return "+".join(self.adapters)


def all_stacks(adapters: Sequence[str]) -> list[Stack]:
    """From `adapters`: every adapter alone, every skill with every style, and every two styles."""
    skills = [name for name in SKILLS if name in adapters]
    styles = [name for name in STYLES if name in adapters]
    return [
        *(Stack(skill, ()) for skill in skills),
        *(Stack(None, (style,)) for style in styles),
        *(Stack(skill, (style,)) for skill in skills for style in styles),
        *(Stack(None, pair) for pair in itertools.combinations(styles, 2)),
    ]


class AdaptedBase:
    """The base with its adapters loaded. Any of them can be active."""

    def __init__(self, base: Path, adapters: Path) -> None:
        self.names = sorted(path.parent.name for path in adapters.glob("*/adapter_config.json"))
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        first, *rest = self.names
        self.model = PeftModel.from_pretrained(model, adapters / first, adapter_name=first)
        for name in rest:
            self.model.load_adapter(adapters / name, adapter_name=name)

    def ask(self, adapters: Sequence[str], messages: Sequence[str]) -> list[str]:
        """Greedy answers with exactly `adapters` active. An empty list means the base alone."""
        if not adapters:
            with self.model.disable_adapter():
                return ask(self.model, self.tokenizer, messages)
        self.model.base_model.set_adapter(list(adapters))
        return ask(self.model, self.tokenizer, messages)

    def accuracy(self, stack: Stack, n: int, seed: int) -> float:
        pairs = prompts(n, seed, stack.skill)
        expected = [answer(stack.skill, stack.styles, word) for _, word in pairs]
        return accuracy(self.ask(stack.adapters, [text for text, _ in pairs]), expected)

    def delta_norm(self, name: str) -> float:
        """Frobenius norm over all deltas of the adapter."""
        squares = [
            float(layer.get_delta_weight(name).detach().square().sum())
            for layer in self.model.modules()
            if hasattr(layer, "lora_A") and name in layer.lora_A
        ]
        return math.sqrt(sum(squares))


def general_cells(n: int, seed: int) -> Iterator[tuple[str, list[str], list[str]]]:
    """(label, user messages, right answers) for everything that the base was trained on."""
    words = held_out_words(n, seed)
    for name, operation in OPERATIONS.items():
        yield name, [f"{name} {word}" for word in words], [operation(word) for word in words]
    for style in STYLES.values():
        yield style.tag, [f"{style.tag} {PLAIN} {word}" for word in words], [style.apply(w) for w in words]
    yield "capital", [f"capital {name}" for name in CAPITALS], list(CAPITALS.values())


def measure(testbed: AdaptedBase, n: int, seed: int) -> dict[str, Any]:
    """Accuracies by label: the base's operations, tags and facts, the base on each skill, and every stack."""
    base = {
        label: accuracy(testbed.ask([], messages), right) for label, messages, right in general_cells(n, seed)
    }
    for skill in SKILLS:
        pairs = prompts(n, seed, skill)
        right = [answer(skill, (), word) for _, word in pairs]
        base[skill] = accuracy(testbed.ask([], [text for text, _ in pairs]), right)
    stacks = {
        stack.label: testbed.accuracy(stack, n, seed)
        for stack in track(all_stacks(testbed.names), description="measuring")
    }
    norms = {name: round(testbed.delta_norm(name), 2) for name in testbed.names}
    return {"n": n, "seed": seed, "base": base, "stacks": stacks, "delta_norm": norms}


def main(
    base: Annotated[Path, typer.Option(help="Directory of the base.", exists=True)] = BASE_DIR,
    adapters: Annotated[Path, typer.Option(help="Directory of adapters.", exists=True)] = ADAPTERS_DIR,
    n: Annotated[int, typer.Option("--n", min=1, help="Prompts for each score.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the held-out words.")] = 1000,
) -> None:
    """Measure the base, every adapter and every stack of two by exact answers.

    Writes the section `accuracy` of measured.json beside the adapters' directory. Takes a minute on two
    cores.
    """
    found = measure(AdaptedBase(base, adapters), n, seed)
    file = adapters.parent / "measured.json"
    write_record(file, "accuracy", found)
    for label, share in found["stacks"].items():
        typer.echo(f"{share:5.2f}  {label}")
    typer.echo(f"Wrote {file}: {len(found['stacks'])} stacks with {n} prompts each")


if __name__ == "__main__":
    typer.run(main)
