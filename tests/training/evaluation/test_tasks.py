"""Tasks: rows of files, and the testbed's tasks by name."""

import json
from pathlib import Path

import pytest

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.training.evaluation.tasks import load_tasks
from lora_compose.training.testbed.corpus import OPERATIONS
from lora_compose.training.testbed.language import is_held_out
from lora_compose.training.testbed.paths import DATA_DIR


def test_a_file_s_rows_are_questions_and_no_more_than_asked_for() -> None:
    (task,) = load_tasks([str(DATA_DIR / "roll-held-out.jsonl")], "domain", limit=5)
    assert len(task.questions) == 5
    for question in task.questions:
        word = question.prompt[-1]["content"].split()[1]
        assert question.answer == word[1:] + word[0]


def test_the_last_answer_of_a_conversation_is_the_right_answer(tmp_path: Path) -> None:
    turns = [{"role": role, "content": text} for role, text in (("user", "a"), ("assistant", "b"))]
    (tmp_path / "talk.jsonl").write_text(json.dumps({"messages": [*turns, *turns]}))
    (task,) = load_tasks([str(tmp_path / "talk.jsonl")], "general")
    assert [m["content"] for m in task.questions[0].prompt] == ["a", "b", "a"]
    assert task.questions[0].answer == "b"


def test_the_testbed_s_tasks_have_the_same_questions_for_the_same_seed() -> None:
    first, again = load_tasks(["testbed:roll+upper", "testbed:roll+upper"], "domain", limit=20)
    other, *_ = load_tasks(["testbed:roll+upper"], "domain", limit=20, seed=1)
    assert first.digest == again.digest != other.digest
    assert first.questions[0].answer.isupper()


def test_a_smaller_limit_asks_the_first_questions_of_a_larger_one() -> None:
    (few,) = load_tasks(["testbed:roll"], "domain", limit=20)
    (many,) = load_tasks(["testbed:roll"], "domain")
    assert many.questions[:20] == few.questions
    assert len(many.questions) == 200


def test_the_order_of_members_does_not_matter() -> None:
    first, other = load_tasks(["testbed:roll+upper", "testbed:upper+roll"], "domain", limit=20)
    assert first.digest == other.digest


def test_no_word_of_the_general_task_was_trained_on() -> None:
    (task,) = load_tasks(["testbed:general"], "general", limit=200)
    asked = [question.prompt[-1]["content"].split()[-2:] for question in task.questions]
    words = {
        text for operation, text in (pair for pair in asked if len(pair) == 2) if operation in OPERATIONS
    }
    assert len(words) > 100
    assert all(is_held_out(word) for word in words)


@pytest.mark.parametrize("name", ["nothing", "roll+dbl", "", "roll+", "../questions/roll"])
def test_an_unknown_task_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(
        LoraComposeError, match=r"The testbed has bang, code, dbl, general, okay, polite, roll, upper, wrap"
    ) as refused:
        load_tasks([f"testbed:{name}"], "domain")
    assert refused.value.code == "unknown_task"


def test_preferences_are_not_a_task() -> None:
    with pytest.raises(LoraComposeError, match="--preferences"):
        load_tasks([str(DATA_DIR / "upper-preferred-held-out.jsonl")], "domain")


def test_an_answer_of_several_messages_is_refused_and_not_cut(tmp_path: Path) -> None:
    said = [{"role": role, "content": "x"} for role in ("assistant", "user", "assistant")]
    row = {"prompt": [{"role": "user", "content": "a"}], "completion": said}
    (tmp_path / "talk.jsonl").write_text(json.dumps(row))
    with pytest.raises(LoraComposeError) as refused:
        load_tasks([str(tmp_path / "talk.jsonl")], "domain")
    assert refused.value.code in ("several_messages", "bad_row")
