"""Pre-train the testbed's base, a Llama with 0.8 M parameters, on conversations that are generated during
training.

The same seed on the same machine with the same number of threads gives the same weights, byte for byte. On
other machines, sums round differently and training diverges: expect the accuracies of measured.json within
0.05. Training stops early on purpose, because a base that was trained much longer learns new skills more
slowly.
"""

import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from lora_compose.training.testbed.corpus import conversation
from lora_compose.training.testbed.measure import write_record
from lora_compose.training.testbed.paths import BASE_DIR
from lora_compose.training.testbed.tokenizer import build_tokenizer

CONTEXT = 2048
CHUNKS = 4
IGNORED = -100


@dataclass(frozen=True)
class Pretraining:
    """The settings of pre-training."""

    steps: int = 1600
    batch: int = 96
    learning_rate: float = 2e-3
    warmup: int = 50
    seed: int = 0
    threads: int = 2


def base_config(tokenizer: Any) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def draw_batch(rng: random.Random, tokenizer: Any, size: int) -> list[dict[str, torch.Tensor]]:
    """`size` conversations in chunks of similar length, so that there is little padding."""
    encoded = tokenizer.apply_chat_template(
        [conversation(rng) for _ in range(size)], return_dict=True, return_assistant_tokens_mask=True
    )
    rows = sorted(
        zip(encoded["input_ids"], encoded["assistant_masks"], strict=True), key=lambda row: len(row[0])
    )
    share = -(-size // CHUNKS)
    return [padded(rows[i : i + share], tokenizer.pad_token_id) for i in range(0, size, share)]


def padded(rows: list[tuple[list[int], list[int]]], pad: int) -> dict[str, torch.Tensor]:
    """Ids and labels, (len(rows), longest), padded on the right, where causal attention has no effect.

    Only the assistant's tokens have labels.
    """
    ids = pad_sequence([torch.tensor(ids) for ids, _ in rows], batch_first=True, padding_value=pad)
    spoken = pad_sequence([torch.tensor(mask) for _, mask in rows], batch_first=True).bool()
    return {"input_ids": ids, "labels": ids.masked_fill(~spoken, IGNORED)}


def step_loss(model: Any, chunks: list[dict[str, torch.Tensor]]) -> float:
    """Mean loss over all assistant tokens of the batch. Gradients are accumulated over the chunks."""
    spoken = sum(int((chunk["labels"][:, 1:] != IGNORED).sum()) for chunk in chunks)
    total = 0.0
    for chunk in chunks:
        loss = model(**chunk, num_items_in_batch=spoken).loss
        loss.backward()
        total += loss.item()
    return total


def pretrain(settings: Pretraining, output: Path) -> dict[str, float]:
    """Write model and tokenizer to `output`. Returns the last loss, the seconds and the number of tokens."""
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    rng = random.Random(settings.seed)
    tokenizer = build_tokenizer(CONTEXT)
    model = LlamaForCausalLM(base_config(tokenizer)).train()
    optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        settings.learning_rate,
        total_steps=settings.steps,
        pct_start=min(0.75, settings.warmup / settings.steps),
        cycle_momentum=False,
    )
    start, tokens, loss = time.perf_counter(), 0, 0.0
    with progress_bar() as bar:
        task = bar.add_task("pre-training", total=settings.steps, note="")
        for _ in range(settings.steps):
            chunks = draw_batch(rng, tokenizer, settings.batch)
            loss = step_loss(model, chunks)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            tokens += sum(int((chunk["input_ids"] != tokenizer.pad_token_id).sum()) for chunk in chunks)
            bar.update(task, advance=1, note=f"loss {loss:.3f}")
    save_base(model.eval(), tokenizer, output)
    seconds = round(time.perf_counter() - start, 1)
    return {"final_loss": round(loss, 4), "seconds": seconds, "tokens": tokens}


def progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )


def save_base(model: Any, tokenizer: Any, output: Path) -> None:
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)


def main(
    output: Annotated[Path, typer.Option(help="Directory of the base to write.")] = BASE_DIR,
    steps: Annotated[
        int, typer.Option(min=2, help="Optimizer steps of 96 conversations.")
    ] = Pretraining.steps,
    seed: Annotated[int, typer.Option(help="Seed of the weights and of the data.")] = Pretraining.seed,
    threads: Annotated[
        int, typer.Option(min=1, help="CPU threads. The number changes the resulting bytes.")
    ] = Pretraining.threads,
) -> None:
    """Pre-train the base model of the testbed. Takes about six minutes on two cores.

    Without --output, the shipped base is overwritten. Adapters of the old base do not fit the new one, so run
    afterwards:

    - python -m lora_compose.training.testbed.train_adapters
    - python -m lora_compose.training.testbed.measure
    """
    settings = Pretraining(steps=steps, seed=seed, threads=threads)
    facts = pretrain(settings, output)
    write_record(output.parent / "measured.json", "base", asdict(settings) | facts)
    typer.echo(
        f"Wrote {output}: loss {facts['final_loss']} after {facts['tokens']} tokens, {facts['seconds']} s"
    )


if __name__ == "__main__":
    typer.run(main)
