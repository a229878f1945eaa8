"""Let the base answer the ordinary questions, and keep its answers in replay.jsonl.

    python -m lora_compose.training.testbed.smollm2.replay

Training on a model's own answers keeps its abilities. The answers are greedy. Each row says whether its
answer ended within LONGEST_ANSWER tokens. Questions that the file has already are not asked again.
"""

import json
from pathlib import Path
from typing import Annotated, Final

import torch
import typer
from transformers import AutoModelForCausalLM, AutoTokenizer

from lora_compose.training.data.messages import Message
from lora_compose.training.evaluation.models import Loaded
from lora_compose.training.evaluation.served_chat import ServedChat
from lora_compose.training.general.replay import Sampling, answered
from lora_compose.training.testbed.smollm2.paths import BASE_NAME, REPLAY_FILE, BaseModel, base_directory
from lora_compose.training.testbed.smollm2.questions import ordinary_questions

LONGEST_ANSWER: Final = 64
"""Tokens of an answer."""
GREEDY: Final = Sampling(temperature=None, max_tokens=LONGEST_ANSWER)
BATCH: Final = 32
ASKED: Final = 128
"""Training questions that are asked."""


def main(
    base: BaseModel = BASE_NAME,
    output: Annotated[Path, typer.Option(help="File to write.")] = REPLAY_FILE,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
) -> None:
    """Ask the base every ordinary question. The file grows by one batch at a time."""
    torch.set_num_threads(threads)
    directory = base_directory(base)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16)
    base_model = Loaded(model, ServedChat.of(AutoTokenizer.from_pretrained(directory), model))
    lines = output.read_text().splitlines() if output.exists() else []
    known = {json.loads(line)["prompt"] for line in lines}
    questions = [*ordinary_questions("train")[:ASKED], *ordinary_questions("held_out")]
    questions = [question for question in questions if question not in known]
    for start in range(0, len(questions), BATCH):
        asked = questions[start : start + BATCH]
        prompts: list[list[Message]] = [[{"role": "user", "content": question}] for question in asked]
        answers = answered(base_model, prompts, GREEDY)
        for question, answer in zip(asked, answers, strict=True):
            row = {"prompt": question, "completion": answer.text, "finished": answer.finished}
            lines.append(json.dumps(row, ensure_ascii=False))
        output.write_text("\n".join(lines) + "\n")
    typer.echo(f"Wrote {output}: {len(lines)} answers")


if __name__ == "__main__":
    typer.run(main)
