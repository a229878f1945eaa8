"""Conversations as people have them: repairs, rows that are left out, and messages that are not learned."""

import json
from pathlib import Path
from typing import Any

import pytest

from lora_compose.training.data.errors import DataRejected
from lora_compose.training.data.rows import ReadOptions, Rows, read_rows

HUMAN, GPT = {"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}
USER, REPLY = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}


def read(tmp_path: Path, rows: list[Any], options: ReadOptions | None = None) -> Rows:
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_rows(str(source), options or ReadOptions())


@pytest.mark.parametrize(
    ("turns", "expected", "note"),
    [
        ([GPT, HUMAN, GPT], [USER, REPLY], "1 conversations began with an assistant message"),
        ([HUMAN, GPT, HUMAN], [USER, REPLY], "1 conversations ended with a message of user"),
        ([HUMAN, HUMAN, GPT], [USER | {"content": "hi\n\nhi"}, REPLY], "1 conversations had successive"),
    ],
)
def test_a_conversation_in_another_order_is_repaired_and_counted(
    turns: list[Any], expected: list[Any], note: str, tmp_path: Path
) -> None:
    rows = read(tmp_path, [{"conversations": [HUMAN, GPT]}, {"conversations": turns}])
    assert rows.dataset["messages"][1] == expected
    assert [found for found in rows.notes if found.startswith(note)]


def test_rows_that_cannot_be_used_are_left_out_if_asked_and_listed(tmp_path: Path) -> None:
    bad = [{"instruction": "y", "output": ""}, {"instruction": "z"}, "{broken"]
    good = [{"instruction": f"say {i}", "output": "x"} for i in range(20)]
    lines = [row if isinstance(row, str) else json.dumps(row) for row in (*good, *bad)]
    source = tmp_path / "rows.jsonl"
    source.write_text("\n".join(lines))
    with pytest.raises(DataRejected, match="3 of 23 rows are bad"):
        read_rows(str(source))
    rows = read_rows(str(source), ReadOptions(bad_rows="drop"))
    assert len(rows.dataset) == 20
    assert [fault.split(": ")[0] for fault in rows.dropped] == [f"{source}:{n}" for n in (21, 22, 23)]
    assert "3 of 23 rows" in rows.remarks[0]


def test_a_source_of_bad_rows_only_is_refused_also_if_they_may_be_left_out(tmp_path: Path) -> None:
    with pytest.raises(DataRejected, match="1 of 1 rows are bad"):
        read(tmp_path, [{"prompt": "a", "completion": ""}], ReadOptions(bad_rows="drop"))


def said(role: str, content: str, **fields: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **fields}


@pytest.mark.parametrize("switch", ["weight", "train", "loss"])
@pytest.mark.parametrize("off", [0, 0.0, False])
def test_only_the_answers_that_must_be_learned_are_completions(
    switch: str, off: object, tmp_path: Path
) -> None:
    turns = [
        said("system", "be brief"),
        said("user", "one"),
        said("assistant", "WRONG", **{switch: off}),
        said("user", "two"),
        said("assistant", "right", **{switch: 1}),
        said("user", "three"),
        said("assistant", "good"),
    ]
    plain = [{key: turn[key] for key in ("role", "content")} for turn in turns]
    rows = read(tmp_path, [{"messages": turns}, {"messages": turns[5:]}])
    assert rows.form == "instruction"
    assert list(rows.dataset) == [
        {"prompt": plain[:4], "completion": plain[4:5]},
        {"prompt": plain[:6], "completion": plain[6:]},
        {"prompt": plain[5:6], "completion": plain[6:]},
    ]
    assert rows.left_out == {}
    assert any("must not be learned" in note for note in rows.notes)


def test_conversations_whose_weights_are_all_one_stay_conversations(tmp_path: Path) -> None:
    rows = read(tmp_path, [{"messages": [USER, REPLY | {"weight": 1}]}])
    assert rows.form == "conversational"


@pytest.mark.parametrize(
    ("weight", "why"), [(0.5, "Only 0 and 1"), ("no", "Only 0 and 1"), (0, "every weight")]
)
def test_a_weight_that_cannot_be_obeyed_is_refused(weight: object, why: str, tmp_path: Path) -> None:
    with pytest.raises(DataRejected, match=why):
        read(tmp_path, [{"messages": [USER, REPLY]}, {"messages": [USER, REPLY | {"weight": weight}]}])


@pytest.mark.parametrize("bad", [False, 0, 0.0, -1, "0", "False", "bad", "rejected", "thumbs_down"])
@pytest.mark.parametrize("column", ["label", "Label", "kto_tag", "desirable"])
def test_answers_that_are_marked_as_bad_are_not_trained_on(bad: object, column: str, tmp_path: Path) -> None:
    row = {"prompt": "say a", "completion": "x"}
    with pytest.raises(DataRejected) as caught:
        read(tmp_path, [row | {column: 1}, row | {column: bad}])
    assert caught.value.code == "wrong_form"
    assert "KTO" in caught.value.message


@pytest.mark.parametrize("label", ["sports", 2, 0.4])
def test_a_label_with_other_values_is_a_column_like_others(label: object, tmp_path: Path) -> None:
    row = {"prompt": "say a", "completion": "x"}
    assert read(tmp_path, [row | {"label": 0}, row | {"label": label}]).left_out == {"label": 2}
    assert read(tmp_path, [row | {"label": True}]).left_out == {"label": 1}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}, REPLY]}, "type image_url"),
        ({"messages": [USER, REPLY | {"tool_calls": [{}]}]}, "has no function with a name"),
        ({"messages": [REPLY]}, "no answer of the assistant"),
        (
            {
                "input": {"messages": [USER], "tools": [{}]},
                "preferred_output": [REPLY],
                "non_preferred_output": [REPLY],
            },
            "has no function with a name",
        ),
        (
            {
                "prompt": "hi",
                "chosen": [said("system", "a"), USER, REPLY],
                "rejected": [said("system", "b"), USER, REPLY],
            },
            "different system messages",
        ),
    ],
)
def test_a_conversation_that_cannot_be_used_says_why(row: Any, why: str, tmp_path: Path) -> None:
    with pytest.raises(DataRejected, match=why):
        read(tmp_path, [row])
