import json
from pathlib import Path

import pytest

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.training.tuning.rows import ValidationRow, halves, read_validation

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
    rows = read_validation(written(tmp_path, "", json.dumps(messages)))
    assert rows[0] == rows[-1] == ValidationRow((("user", "say a"),), "a")
    assert rows[0].messages == messages["prompt"]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        '{"prompt": "a"}',
        '{"prompt": "a", "completion": "b", "more": 1}',
        '{"prompt": [], "completion": "b"}',
        '{"prompt": [{"role": "user"}], "completion": "b"}',
        '{"prompt": "a", "completion": [{"role": "user", "content": "b"}]}',
        '{"prompt": "a", "completion": 3}',
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, line: str) -> None:
    file = written(tmp_path, line)
    with pytest.raises(LoraComposeError, match=f"{file}:5: ") as refusal:
        read_validation(file)
    assert refusal.value.code == "bad_validation"


@pytest.mark.parametrize("name", ["missing.jsonl", "short.jsonl"])
def test_too_few_rows_or_no_file_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "short.jsonl").write_text(json.dumps(PLAIN[0]))
    with pytest.raises(LoraComposeError, match=name):
        read_validation(tmp_path / name)


def test_halves_share_no_prompt_and_depend_on_the_seed_alone() -> None:
    rows = [ValidationRow((("user", str(i // 2)),), str(i)) for i in range(40)]
    tuned, held_out = halves(rows, seed=3)
    assert len(tuned) == len(held_out) == 20
    assert not {row.prompt for row in tuned} & {row.prompt for row in held_out}
    assert halves(rows, seed=3) == (tuned, held_out) != halves(rows, seed=4)
