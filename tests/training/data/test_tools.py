"""Rows with calls of tools: each answer becomes a row, and what tools say is never an answer."""

import json
from pathlib import Path
from typing import Any

import pytest

from lora_compose.training.data.curation import Options, curate
from lora_compose.training.data.errors import DataRejected
from lora_compose.training.data.mixing import mix, mix_sources
from lora_compose.training.data.rows import Rows, as_rows, read_rows
from tests.training.data import tool_rows as given
from tests.training.data.written_rows import written


def read(tmp_path: Path, *records: dict[str, Any]) -> Rows:
    return read_rows(written(tmp_path / "rows.jsonl", list(records)))


@pytest.mark.parametrize("record", [given.OPENAI, given.OPENAI_OF_BEFORE, given.SHAREGPT])
def test_each_answer_is_a_completion_and_the_answer_of_a_tool_is_a_prompt(
    record: dict[str, Any], tmp_path: Path
) -> None:
    call, answer = read(tmp_path, record).dataset
    assert [turn["role"] for turn in call["prompt"]] == ["user"]
    (calling,) = call["completion"]
    assert calling["content"] == ""
    assert calling["tool_calls"][0]["function"] == {"name": "forecast", "arguments": given.ARGUMENTS}
    assert [turn["role"] for turn in answer["prompt"]] == ["user", "assistant", "tool"]
    assert answer["prompt"][2]["content"] == '{"sky": "clear"}'
    assert answer["completion"] == [given.ANSWER]
    assert [json.loads(row["tools"]) for row in (call, answer)] == [given.TOOLS] * 2


def test_a_pair_of_a_call_and_a_text_keeps_its_tools(tmp_path: Path) -> None:
    (row,) = read(tmp_path, given.PREFERENCE).dataset
    assert row["chosen"][0]["tool_calls"][0]["function"]["arguments"] == given.ARGUMENTS
    assert row["rejected"][0]["content"] == "i do not know"
    assert json.loads(row["tools"]) == given.TOOLS


def test_conversations_without_tools_beside_those_with_tools_offer_none(tmp_path: Path) -> None:
    plain = {"messages": [given.USER, given.ANSWER]}
    rows = read(tmp_path, plain, given.OPENAI)
    assert rows.dataset["tools"][0] is None
    assert rows.origins[1].place == f"{tmp_path / 'rows.jsonl'}:2"
    assert rows.left_out == {"parallel_tool_calls": 1}


def test_an_answer_with_weight_0_is_no_row(tmp_path: Path) -> None:
    record = {
        **given.OPENAI,
        "messages": [given.USER, {**given.CALLING, "weight": 0}, *given.OPENAI["messages"][2:]],
    }
    (row,) = read(tmp_path, record).dataset
    assert row["completion"] == [given.ANSWER]


def changed(**fields: Any) -> dict[str, Any]:
    return {**given.OPENAI, **fields}


def turns(*messages: dict[str, Any]) -> dict[str, Any]:
    return changed(messages=list(messages))


BROKEN_CALL = {**given.CALL, "function": {"name": "forecast", "arguments": "{city: Paris}"}}
BAD: list[tuple[dict[str, Any], str]] = [
    (turns(given.USER, {**given.CALLING, "tool_calls": [BROKEN_CALL]}), "arguments is not JSON"),
    (turns(given.USER, {**given.CALLING, "tool_calls": [{"id": "x"}]}), "has no function with a name"),
    (turns(given.USER, {**given.CALLING, "tool_calls": {}}), "tool_calls is dict, not a list"),
    (turns({**given.USER, "tool_calls": [given.CALL]}, given.ANSWER), "only the assistant can call"),
    (turns(given.USER, given.RESULT, given.ANSWER), "a message of tool, but assistant is expected"),
    (turns(given.USER, given.CALLING, given.ANSWER), "tool_calls|tool is expected"),
    (turns(given.USER, given.CALLING, {**given.RESULT, "tool_call_id": "x"}, given.ANSWER), "no call before"),
    (changed(tools=["python"]), "not the definition of a function"),
    (changed(tools="python"), "tools is not JSON"),
    (changed(tools=[{"type": "function"}]), "has no function with a name"),
    (
        {"prompt": "a", "chosen": [given.CALLING, given.RESULT, given.ANSWER], "rejected": "b"},
        "must not be learned",
    ),
]


@pytest.mark.parametrize(("record", "why"), BAD)
def test_a_row_whose_tools_cannot_be_used_says_where_and_why(
    record: dict[str, Any], why: str, tmp_path: Path
) -> None:
    with pytest.raises(DataRejected, match=why) as refused:
        read(tmp_path, record)
    assert "rows.jsonl:1: " in refused.value.message


def test_rows_with_and_without_tools_can_be_mixed(tmp_path: Path) -> None:
    tools = read(tmp_path, given.OPENAI)
    plain = read_rows(written(tmp_path / "plain.jsonl", [{"prompt": "a", "completion": "b"}] * 2))
    mixed = mix(mix_sources([plain], [tools], "1:1"), total=None, by="examples", seed=0)
    assert sorted(row["tools"] is None for row in mixed.dataset) == [False, False, True, True]


def test_curating_masks_what_tools_say_and_a_second_pass_changes_nothing(tmp_path: Path) -> None:
    named = json.loads(json.dumps(given.OPENAI).replace("Paris", "a@b.com"))
    first = curate(read(tmp_path, named), [], Options())
    call, _ = first.rows
    assert call["prompt"][0]["content"] == "weather in <EMAIL_1>"
    assert call["completion"][0]["tool_calls"][0]["function"]["arguments"]["city"] == "<EMAIL_1>"
    second = curate(as_rows("again", "instruction", first.rows), [], Options())
    assert second.rows == first.rows


def test_curated_rows_are_read_again_as_they_were(tmp_path: Path) -> None:
    rows = read(tmp_path, given.OPENAI, {"messages": [given.USER, given.ANSWER]})
    again = read_rows(written(tmp_path / "again.jsonl", rows.dataset.to_list()))
    assert again.digest == rows.digest
