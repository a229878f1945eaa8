"""Every layout becomes one of three forms, and a bad row is named with its file and line."""

import json
from pathlib import Path
from typing import Any

import pytest

from lora_compose.training.data.errors import DataRejected
from lora_compose.training.data.rows import read_rows
from tests.training.data.written_rows import written

USER = {"role": "user", "content": "say hi"}
REPLY = {"role": "assistant", "content": "hi"}
OTHER = {"role": "assistant", "content": "ho"}
SYSTEM = {"role": "system", "content": "be brief"}
INSTRUCTION = {"prompt": [USER], "completion": [REPLY]}
PREFERENCE = {"prompt": [USER], "chosen": [REPLY], "rejected": [OTHER]}

BRIEF_PREFERENCE = {"prompt": [SYSTEM, USER], "chosen": [REPLY], "rejected": [OTHER]}
LAYOUTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"instruction": "say hi", "output": "hi", "input": ""}, INSTRUCTION),
    ({"instruction": "say hi", "response": "hi", "context": None}, INSTRUCTION),
    ({"prompt": "say hi", "completion": "hi"}, INSTRUCTION),
    ({"prompt": [USER], "completion": [REPLY]}, INSTRUCTION),
    ({"question": "say hi", "answer": "hi"}, INSTRUCTION),
    ({"prompt": "say hi", "response": "hi"}, INSTRUCTION),
    (
        {"system_prompt": "be brief", "question": "say hi", "response": "hi"},
        {"prompt": [SYSTEM, USER], "completion": [REPLY]},
    ),
    ({"messages": [SYSTEM, USER, REPLY]}, {"messages": [SYSTEM, USER, REPLY]}),
    (
        {"conversations": [{"from": "human", "value": "say hi"}, {"from": "gpt", "value": "hi"}]},
        {"messages": [USER, REPLY]},
    ),
    ({"prompt": "say hi", "chosen": "hi", "rejected": "ho"}, PREFERENCE),
    ({"prompt": "say hi", "chosen": [USER, REPLY], "rejected": [USER, OTHER]}, PREFERENCE),
    ({"chosen": [USER, REPLY], "rejected": [USER, OTHER]}, PREFERENCE),
    ({"chosen": [USER, REPLY], "rejected": [USER, REPLY]}, PREFERENCE | {"rejected": [REPLY]}),
    (
        {"prompt": "say hi", "chosen": [SYSTEM, USER, REPLY], "rejected": [SYSTEM, USER, OTHER]},
        BRIEF_PREFERENCE,
    ),
    (
        {
            "input": {"messages": [SYSTEM, USER], "tools": [], "parallel_tool_calls": True},
            "preferred_output": [REPLY],
            "non_preferred_output": [OTHER],
        },
        BRIEF_PREFERENCE,
    ),
    ({"conversations": [USER, REPLY]}, {"messages": [USER, REPLY]}),
    (
        {"messages": [{"role": "developer", "content": "be brief"}, USER, REPLY]},
        {"messages": [SYSTEM, USER, REPLY]},
    ),
    (
        {"messages": [{"role": "User", "content": [{"type": "text", "text": "say "}, "hi"]}, REPLY]},
        {"messages": [USER, REPLY]},
    ),
    ({" Prompt": "say hi", "Completion ": "hi"}, INSTRUCTION),
    ({"Instruction": "say hi", "OUTPUT": "hi"}, INSTRUCTION),
]


@pytest.mark.parametrize(("record", "normalised"), LAYOUTS)
def test_a_layout_becomes_its_form(record: dict[str, Any], normalised: Any, tmp_path: Path) -> None:
    rows = read_rows(written(tmp_path / "rows.jsonl", [record]))
    assert rows.dataset.to_list() == [normalised]


def test_an_alpaca_input_follows_its_instruction(tmp_path: Path) -> None:
    source = written(tmp_path / "a.jsonl", [{"instruction": "Add.", "input": "1 2", "output": "3"}])
    assert read_rows(source).dataset[0]["prompt"][0]["content"] == "Add.\n\n1 2"


BAD: list[tuple[Any, str]] = [
    ({"prompt": "a"}, "completion is missing"),
    ({"prompt": "a", "completion": "  "}, "completion is empty"),
    ({"prompt": "a", "completion": 4}, "completion is int, not text"),
    ('{"prompt": "a", ', "invalid JSON"),
    ("[1]", "of type list, not an object"),
    ('{"prompt": "a", "completion": "\\ud800"}', "lone surrogate"),
    ({"question": "a", "answer": "b"}, "but most rows have those of"),
    ({"prompt": [REPLY], "completion": [REPLY]}, "prompt[0] is a message of assistant, but user is expected"),
    ({"prompt": [USER], "completion": [REPLY, USER]}, "completion ends with a message of user"),
    (
        {"prompt": [USER], "completion": [{"role": "tool", "content": "x"}]},
        "message of tool, but assistant is",
    ),
]


@pytest.mark.parametrize(("bad", "why"), BAD)
def test_a_bad_row_is_named_with_file_line_and_reason(bad: Any, why: str, tmp_path: Path) -> None:
    good = {"prompt": "a", "completion": "b"}
    source = written(tmp_path / "rows.jsonl", [good, bad, good])
    with pytest.raises(DataRejected) as caught:
        read_rows(source)
    assert caught.value.code == "bad_row"
    assert f"{source}:2: " in caught.value.message
    assert why in caught.value.message


def test_up_to_ten_bad_rows_are_listed_and_the_others_counted(tmp_path: Path) -> None:
    source = written(tmp_path / "rows.jsonl", [{"prompt": "a", "completion": ""}] * 13)
    with pytest.raises(DataRejected, match=r"13 of 13 rows are bad[\s\S]*\.\.\. and 3 more") as caught:
        read_rows(source)
    assert caught.value.message.count("rows.jsonl:") == 10


def test_columns_that_no_form_uses_are_left_out_and_counted(tmp_path: Path) -> None:
    record = {"prompt": "a", "completion": [REPLY | {"id": 7}], "score": 1, "nothing": None}
    rows = read_rows(written(tmp_path / "rows.jsonl", [record]))
    assert rows.left_out == {"completion[].id": 1, "score": 1}
    assert set(rows.dataset.column_names) == {"prompt", "completion"}


def test_a_file_that_fits_two_layouts_is_refused(tmp_path: Path) -> None:
    record = {"prompt": "a", "completion": "b", "question": "a", "answer": "b"}
    with pytest.raises(DataRejected, match="Keep only the columns of one") as caught:
        read_rows(written(tmp_path / "rows.jsonl", [record]))
    assert caught.value.code == "ambiguous_form"


def test_every_format_gives_the_same_digest(tmp_path: Path) -> None:
    from datasets import Dataset

    records = [{"prompt": "say, hi", "completion": "two\nlines"}, {"prompt": "b", "completion": "c"}]
    dataset = Dataset.from_list(records)
    dataset.to_parquet(tmp_path / "r.parquet")
    dataset.to_csv(tmp_path / "r.csv")
    dataset.save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "r.json").write_text(json.dumps(records, indent=1))
    sources = [str(tmp_path / name) for name in ("r.parquet", "r.csv", "r.json", "saved")]
    jsonl = read_rows(written(tmp_path / "r.jsonl", records))
    assert {read_rows(source).digest for source in sources} == {jsonl.digest}


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("r.csv", 'prompt,completion\n"a\nb",c\nd,\n', ":4: completion is missing"),
        ("r.csv", "prompt,completion\na,b\na,b,c\n", ":3: the row has 3 cells, but there are 2 columns"),
        ("r.json", '[\n{"prompt": "a", "completion": "b"},\n{"prompt": "a"}\n]', ":3: completion is missing"),
        ("r.json", '[{"prompt": "a", "completion": "b"},\n{"prompt": ]', ":2: invalid JSON"),
    ],
)
def test_the_line_is_right_in_other_formats(name: str, content: str, place: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataRejected) as caught:
        read_rows(str(tmp_path / name))
    assert place in caught.value.message


def test_one_of_several_splits_must_be_named(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    one = Dataset.from_list([{"prompt": "a", "completion": "b"}])
    DatasetDict({"train": one, "test": one}).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataRejected, match="#train"):
        read_rows(str(tmp_path / "saved"))
    assert len(read_rows(f"{tmp_path / 'saved'}#test").dataset) == 1


@pytest.mark.parametrize(("content", "code"), [("", "no_rows"), ('{"a": "b"}\n', "unknown_form")])
def test_a_source_without_rows_of_a_known_form_is_refused(content: str, code: str, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text(content)
    with pytest.raises(DataRejected) as caught:
        read_rows(str(tmp_path / "r.jsonl"))
    assert caught.value.code == code


def test_a_source_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataRejected) as caught:
        read_rows(str(tmp_path / "missing.jsonl"))
    assert caught.value.code == "source_not_found"
