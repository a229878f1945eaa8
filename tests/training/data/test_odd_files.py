"""Files as strangers have them are read, or refused in a message that names the row."""

import json
from pathlib import Path

import pytest

from lora_compose.training.data.errors import DataRejected
from lora_compose.training.data.rows import read_rows

ROW = '{"prompt": "a", "completion": "b"}'
READ: list[tuple[str, str | bytes, int]] = [
    ("sep.csv", "sep=;\r\nprompt;completion\r\na;b\r\n", 1),
    ("blank.csv", "\n\nprompt,completion\n\na,b\n", 1),
    ("index.csv", ",prompt,completion\n0,a,b\n", 1),
    ("trailing.csv", "prompt,completion,,\na,b,,\n", 1),
    ("old-mac.csv", "prompt,completion\ra,b\r", 1),
    ("joined.jsonl", f"{ROW}\n\ufeff{ROW}\n", 2),
    ("array.jsonl", f"[{ROW}]", 1),
    ("lines.json", f"{ROW}\n{ROW}\n", 2),
    (
        "messages.csv",
        'messages\n"[{""role"": ""user"", ""content"": ""a""}, '
        '{""role"": ""assistant"", ""content"": ""b""}]"\n',
        1,
    ),
    (
        "one-message.jsonl",
        '{"prompt": "a", "chosen": {"role": "assistant", "content": "b"}, "rejected": "c"}',
        1,
    ),
]
REFUSED: list[tuple[str, str | bytes, str]] = [
    ("twice.csv", "prompt,prompt,completion\na,b,c\n", "names the column 'prompt' twice"),
    ("quote.csv", 'prompt,completion\na,"b\nc,d\n', "quote.csv:2: invalid CSV"),
    ("nul.csv", "prompt,completion\na\0x,b\n", "nul.csv:2: prompt contains a NUL character"),
    ("width.jsonl", '{"prompt": "a", "completion": "\u200b"}', "width.jsonl:1: completion is empty"),
    ("digits.jsonl", f'{ROW}\n{{"prompt": {"9" * 5000}}}\n', "digits.jsonl:2: invalid JSON: it has a number"),
    ("digits.json", f'[{ROW},\n{{"prompt": {"9" * 5000}}}]', "digits.json:2: invalid JSON: it has a number"),
    ("sheet.xlsx", b"PK\x03\x04", "soffice --headless --convert-to csv"),
    ("broken.arrow", b"ARROW1", "broken.arrow"),
    (
        "middle.jsonl",
        json.dumps({
            "conversations": [
                {"from": "human", "value": "a"},
                {"from": "system", "value": "s"},
                {"from": "gpt", "value": "b"},
            ]
        }),
        "Move it to the beginning",
    ),
]


def written(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


@pytest.mark.parametrize(("name", "content", "count"), READ)
def test_an_odd_file_is_read(name: str, content: str | bytes, count: int, tmp_path: Path) -> None:
    rows = read_rows(written(tmp_path / name, content)).dataset
    assert len(rows) == count
    first = rows[0]
    turns = [*first.get("prompt", []), *first.get("completion", first.get("chosen", first.get("messages")))]
    assert [turn["content"] for turn in turns] == ["a", "b"]


@pytest.mark.parametrize(("name", "content", "why"), REFUSED)
def test_a_file_that_cannot_be_read_says_where_and_why(
    name: str, content: str | bytes, why: str, tmp_path: Path
) -> None:
    with pytest.raises(DataRejected) as refused:
        read_rows(written(tmp_path / name, content))
    assert why in refused.value.message


@pytest.mark.parametrize("nothing", ["", "nan", "None", None, float("nan")])
def test_an_input_that_says_nothing_is_left_out(nothing: object, tmp_path: Path) -> None:
    row = json.dumps({"instruction": "say a", "input": nothing, "output": "b"})
    rows = read_rows(written(tmp_path / "rows.jsonl", row))
    assert rows.dataset[0]["prompt"][0]["content"] == "say a"


@pytest.mark.parametrize("suffix", ["arrow", "feather", "stream.arrow"])
def test_arrow_files_are_read(suffix: str, tmp_path: Path) -> None:
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import ipc

    table = pyarrow.Table.from_pylist([json.loads(ROW)])
    path = tmp_path / f"rows.{suffix}"
    make = ipc.new_stream if suffix.startswith("stream") else ipc.new_file
    with pyarrow.OSFile(str(path), "wb") as file, make(file, table.schema) as writer:
        writer.write_table(table)
    assert len(read_rows(str(path)).dataset) == 1
