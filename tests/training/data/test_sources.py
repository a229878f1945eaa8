"""Files as people have them: separators, encodings, compression, documents, directories and patterns."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pytest

from lora_compose.training.data.errors import DataRejected
from lora_compose.training.data.rows import ReadOptions, Rows, read_rows

GREEK = "prompt,completion\r\n" + "Γειά σου Κόσμε,καλημέρα σας\r\n" * 20
KOREAN = "prompt,completion\r\n안녕,하세요\r\n"
ROW = {"prompt": "a", "completion": "b"}
LINE = json.dumps(ROW) + "\n"


def pairs(rows: Rows) -> list[tuple[str, str]]:
    return [(row["prompt"][0]["content"], row["completion"][0]["content"]) for row in rows.dataset]


TABLES = [
    ("comma.csv", 'prompt,completion\r\n"a\r\nb","c ""d"""\r\n', "utf-8-sig", ("a\r\nb", 'c "d"')),
    ("semicolon.csv", 'prompt;completion\r\n"say, hi";"hi; there"\r\n', "utf-8", ("say, hi", "hi; there")),
    ("excel.csv", "sep=;\r\nprompt;completion\r\na,b;c\r\n", "utf-8", ("a,b", "c")),
    ("pipe.csv", "prompt|completion\na,b|c;d\n", "utf-8", ("a,b", "c;d")),
    ("many.csv", "id,a;b,Prompt,Completion\n1,2,a,b\n", "utf-8", ("a", "b")),
    ("tabs.tsv", "prompt\tcompletion\na,b\tc\n", "utf-8", ("a,b", "c")),
    ("unicode.csv", "prompt\tcompletion\r\nsay\tcafé\r\n", "utf-16", ("say", "café")),
    ("wide.csv", "prompt,completion\nsay,café\n", "utf-32", ("say", "café")),
    ("korean.csv", KOREAN, "cp949", ("안녕", "하세요")),
    ("greek.csv", GREEK, "cp1253", ("Γειά σου Κόσμε", "καλημέρα σας")),
    ("long.csv", "prompt,completion\na," + "word " * 40000 + "\n", "utf-8", ("a", "word " * 40000)),
]


@pytest.mark.parametrize(("name", "text", "encoding", "pair"), TABLES, ids=[name for name, *_ in TABLES])
def test_a_table_is_read_as_spreadsheets_write_it(
    name: str, text: str, encoding: str, pair: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(text.encode(encoding))
    rows = read_rows(str(tmp_path / name))
    assert pairs(rows)[0] == pair
    is_detected = any("was read as" in note for note in rows.notes)
    assert is_detected == encoding.startswith("cp")


DOCUMENTS: list[tuple[str, str]] = [
    ("array.jsonl", json.dumps([ROW], indent=1)),
    ("object.jsonl", json.dumps(ROW, indent=1)),
    ("line.jsonl", json.dumps({"data": [ROW]})),
    ("objects.json", json.dumps(ROW, indent=1) + "\n" + json.dumps(ROW, indent=1)),
    ("lines.json", LINE * 2),
    ("one.json", json.dumps(ROW)),
    ("wrapped.json", json.dumps({"version": 1, "data": [ROW]}, indent=1)),
    ("viewer.json", json.dumps({"features": [], "rows": [{"row_idx": 0, "row": ROW}]})),
    ("columns.json", json.dumps({"prompt": ["a", "c"], "completion": ["b", "d"]})),
    ("pandas.json", json.dumps({"prompt": {"0": "a", "1": "c"}, "completion": {"0": "b", "1": "d"}})),
]


@pytest.mark.parametrize(("name", "text"), DOCUMENTS, ids=[name for name, _ in DOCUMENTS])
def test_the_content_of_a_json_file_decides_and_not_its_name(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert pairs(read_rows(str(tmp_path / name)))[0] == ("a", "b")


def test_a_single_conversation_is_a_row_and_not_a_list_of_rows(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
    (tmp_path / "one.json").write_text(json.dumps({"messages": turns}, indent=1))
    assert read_rows(str(tmp_path / "one.json")).dataset["messages"] == [turns]


@pytest.mark.parametrize("kind", ["gzip", "bz2", "zstd", "lz4"])
def test_a_compressed_file_is_read(kind: str, tmp_path: Path) -> None:
    suffix = {"gzip": "gz", "bz2": "bz2", "zstd": "zst", "lz4": "lz4"}[kind]
    for name, text in (("rows.jsonl", LINE), ("rows.csv", "prompt,completion\na,b\n")):
        file = tmp_path / f"{name}.{suffix}"
        with pa.CompressedOutputStream(str(file), kind) as out:
            out.write(text.encode())
        assert pairs(read_rows(str(file))) == [("a", "b")]


@pytest.mark.parametrize("damage", [lambda data: data[:-12], lambda _: b"not compressed"])
def test_a_damaged_compressed_file_is_refused(damage: Any, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl.gz"
    file.write_bytes(damage(gzip.compress(LINE.encode() * 100)))
    with pytest.raises(DataRejected) as caught:
        read_rows(str(file))
    assert caught.value.code == "broken_file"


def test_an_encoding_that_cannot_be_told_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes("prompt,completion\nsay,café déjà\n".encode("cp1252"))
    with pytest.raises(DataRejected, match="--encoding"):
        read_rows(str(file))
    assert pairs(read_rows(str(file), ReadOptions(encoding="cp1252"))) == [("say", "café déjà")]
    for wrong in ("ascii", "klingon"):
        with pytest.raises(DataRejected):
            read_rows(str(file), ReadOptions(encoding=wrong))


def test_a_directory_and_a_pattern_are_all_their_files_in_order(tmp_path: Path) -> None:
    for name, prompt in (("b.jsonl", "2"), ("a.csv", "1"), ("sub/c.json", "3")):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        table = f"prompt,completion\n{prompt},x\n"
        file.write_text(table if name.endswith("csv") else json.dumps({"prompt": prompt, "completion": "x"}))
    (tmp_path / "README.md").write_text("not rows")
    (tmp_path / "dataset_info.json").write_text("{}")
    assert [prompt for prompt, _ in pairs(read_rows(str(tmp_path)))] == ["1", "2", "3"]
    assert [prompt for prompt, _ in pairs(read_rows(f"{tmp_path}/*.jsonl"))] == ["2"]
    assert [prompt for prompt, _ in pairs(read_rows(f"{tmp_path}/**/*.json*"))] == ["2", "3"]
    with pytest.raises(DataRejected):
        read_rows(f"{tmp_path}/*.parquet")


def test_the_splits_of_a_directory_are_not_mixed(tmp_path: Path) -> None:
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"prompt": name, "completion": "x"}))
    with pytest.raises(DataRejected) as caught:
        read_rows(str(tmp_path))
    assert caught.value.code == "which_split"
    assert "test, train" in caught.value.message
    assert len(read_rows(f"{tmp_path}#train").dataset) == 2


def test_one_of_several_lists_in_a_document_must_be_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_text(json.dumps({"train": [ROW, ROW], "test": [ROW]}))
    with pytest.raises(DataRejected) as caught:
        read_rows(str(file))
    assert caught.value.code == "which_split"
    assert len(read_rows(f"{file}#train").dataset) == 2


def test_a_spreadsheet_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "rows.xlsx").write_bytes(b"PK")
    with pytest.raises(DataRejected, match="Save it as CSV"):
        read_rows(str(tmp_path / "rows.xlsx"))
