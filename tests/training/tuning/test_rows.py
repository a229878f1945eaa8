"""The rows of a weight search: any form that `eval` reads, judged, and cut into two halves."""

import json
from pathlib import Path

import pytest

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.training.evaluation.judges.question import Question
from lora_compose.training.evaluation.tasks import Task
from lora_compose.training.tuning.rows import halves, read_validation

PLAIN = [{"prompt": f"say {letter}", "completion": letter} for letter in "abcd"]


def written(tmp_path: Path, *lines: str) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join([*map(json.dumps, PLAIN), *lines]) + "\n")
    return file


def test_texts_and_messages_are_read_as_the_same_row(tmp_path: Path) -> None:
    messages = {
        "prompt": [{"role": "user", "content": "say a"}],
        "completion": [{"role": "assistant", "content": "a"}],
    }
    file = tmp_path / "messages.jsonl"
    file.write_text("\n".join([json.dumps(messages)] * 4))
    questions = read_validation(written(tmp_path), "exact").questions
    assert (questions[0].prompt, questions[0].answer) == (messages["prompt"], "a")
    again = read_validation(file, "exact").questions
    assert (again[0].prompt, again[0].answer) == (messages["prompt"], "a")


def test_a_judge_is_taken_and_a_row_that_it_cannot_judge_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoraComposeError, match=r"rows\.jsonl:1") as refusal:
        read_validation(written(tmp_path), "json")
    assert refusal.value.code == "cannot_judge"


@pytest.mark.parametrize("judge", ["loss", "perplexity"])
def test_a_loss_is_refused_because_a_server_gives_answers(tmp_path: Path, judge: str) -> None:
    with pytest.raises(LoraComposeError) as refusal:
        read_validation(written(tmp_path), judge)
    assert refusal.value.code == "bad_validation"


def test_too_few_rows_or_no_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "short.jsonl").write_text(json.dumps(PLAIN[0]))
    for name in ("short.jsonl", "missing.jsonl"):
        with pytest.raises(LoraComposeError, match=name):
            read_validation(tmp_path / name, "exact")


def test_halves_share_no_prompt_and_depend_on_the_seed_alone() -> None:
    task = Task(
        "t",
        "domain",
        tuple(Question([{"role": "user", "content": str(i // 2)}], str(i)) for i in range(40)),
    )
    tuned, held_out = halves(task, seed=3)
    assert len(tuned.questions) == len(held_out.questions) == 20
    prompts = [{question.prompt[0]["content"] for question in part.questions} for part in (tuned, held_out)]
    assert not prompts[0] & prompts[1]
    assert halves(task, seed=3) == (tuned, held_out) != halves(task, seed=4)
