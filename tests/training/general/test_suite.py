"""The suite: seeded, without repetition, and its right answers are right by its own judges."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lora_compose.adapters.command_line import create_app
from lora_compose.training.evaluation.tasks import load_tasks
from lora_compose.training.general.suite import GROUPS, suite


def test_a_seed_gives_the_same_questions_and_another_seed_others() -> None:
    first = suite(120, 0)
    assert first == suite(120, 0)
    assert len({row["prompt"] for row in first}) == 120
    assert [row["group"] for row in first[:6]] == list(GROUPS)
    assert len({row["prompt"] for row in [*first, *suite(120, 1)]}) > 150


@pytest.mark.parametrize("seed", [0, 1])
def test_a_right_answer_is_right_and_a_wrong_one_is_not(tmp_path: Path, seed: int) -> None:
    file = tmp_path / "suite.jsonl"
    done = CliRunner().invoke(
        create_app(), ["train", "suite", str(file), "--rows", "300", "--seed", str(seed), "--json"]
    )
    assert json.loads(done.stdout)["rows"] == 300
    (task,) = load_tasks([str(file)], "general")
    for question in task.questions:
        judge = task.judge_of(question)
        assert judge(question, question.answer) == 1, question
        assert judge(question, "I do not know.") == 0, question
        assert judge(question, "") == 0


def test_an_answer_in_a_sentence_is_right(tmp_path: Path) -> None:
    file = tmp_path / "suite.jsonl"
    CliRunner().invoke(create_app(), ["train", "suite", str(file), "--rows", "60"])
    (task,) = load_tasks([str(file)], "general")
    for question in task.questions:
        if question.fields["group"] in {"arithmetic", "logic"}:
            said = f"{question.answer}, because that follows from the text."
            assert task.judge_of(question)(question, said) == 1


def test_an_existing_file_is_not_replaced(tmp_path: Path) -> None:
    file = tmp_path / "suite.jsonl"
    file.write_text("mine")
    refused = CliRunner().invoke(create_app(), ["train", "suite", str(file)])
    assert "already exists" in str(refused.exception)
    assert file.read_text() == "mine"
