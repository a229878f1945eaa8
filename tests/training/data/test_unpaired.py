"""Good and bad answers for KTO, in the shapes that people have."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lora_compose.training.data.curation import Options, curate
from lora_compose.training.data.errors import DataRejected
from lora_compose.training.data.labels import LabelRule
from lora_compose.training.data.rows import ReadOptions, Rows, read_rows
from lora_compose.training.data.unpaired import read_as_it_is, read_unpaired

CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]


def rated(labels: Sequence[Any], column: str = "label") -> list[dict[str, Any]]:
    return [{"prompt": f"q{n}", "completion": f"a{n}", column: label} for n, label in enumerate(labels)]


def written(directory: Path, rows: Sequence[Any]) -> str:
    file = directory / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def read(directory: Path, rows: Sequence[Any], rule: LabelRule = LabelRule()) -> Rows:  # noqa: B008
    return read_unpaired(written(directory, rows), ReadOptions(), rule)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (True, False),
        (1, 0),
        ("1", "0"),
        ("good", "Bad"),
        ("👍🏽", "👎"),
        ("thumbs up", "thumbs down"),
        (1, -1),
        ("yes", "no"),
        ("accepted", "rejected"),
    ],
)
@pytest.mark.parametrize("column", ["label", "Feedback", "kto_tag", "thumbs"])
def test_a_label_of_any_type_means_what_it_says(tmp_path: Path, good: Any, bad: Any, column: str) -> None:
    rows = read(tmp_path, rated([good, bad, good], column))
    assert rows.dataset["label"][:] == [True, False, True]
    assert rows.form == "unpaired"
    assert rows.left_out == {}


def test_ratings_need_a_threshold_that_is_said(tmp_path: Path) -> None:
    rows = rated([5, 4, 3, "1.5"], "stars")
    with pytest.raises(DataRejected, match=r"stars has the values '5' \(1\).*--good-from 4") as refused:
        read(tmp_path, rows)
    assert refused.value.code == "unclear_labels"
    assert read(tmp_path, rows, LabelRule(good_from=4)).dataset["label"][:] == [True, True, False, False]


def test_own_words_are_labels_if_the_good_ones_are_named(tmp_path: Path) -> None:
    rows = rated(["shipped", "returned"], "state")
    with pytest.raises(DataRejected, match="no column that says whether an answer is good"):
        read(tmp_path, rows)
    with pytest.raises(DataRejected, match="--good-labels"):
        read(tmp_path, rows, LabelRule("state"))
    rule = LabelRule("State", good_labels=("Shipped",))
    assert read(tmp_path, rows, rule).dataset["label"][:] == [True, False]


def test_a_label_of_a_chat_is_about_its_last_answer(tmp_path: Path) -> None:
    again = [*CHAT, {"role": "user", "content": "bye"}, {"role": "assistant", "content": "see you"}]
    rows = read(tmp_path, [{"messages": CHAT, "label": True}, {"messages": again, "label": False}]).dataset
    assert rows[1]["prompt"] == again[:-1]
    assert rows[1]["completion"] == again[-1:]


def test_a_pair_becomes_a_good_and_a_bad_answer(tmp_path: Path) -> None:
    rows = read(tmp_path, [{"prompt": "q", "chosen": "yes", "rejected": "no"}])
    assert [(row["completion"][0]["content"], row["label"]) for row in rows.dataset] == [
        ("yes", True),
        ("no", False),
    ]
    assert rows.remarks == ["1 pairs became a good and a bad row"]


def test_a_label_that_is_missing_or_unclear_is_a_bad_row(tmp_path: Path) -> None:
    with pytest.raises(DataRejected, match=r":2: label is missing\n.*:4: label is 'perhaps', which says"):
        read(tmp_path, rated([True, None, False, "perhaps"]))


def test_two_files_with_other_labels_are_other_data(tmp_path: Path) -> None:
    assert read(tmp_path, rated([True, False])).digest != read(tmp_path, rated([False, True])).digest


@pytest.mark.parametrize(
    ("good", "bad"), [(True, False), (1, 0), ("good", "bad"), ("👍", "👎"), ("thumbs_up", "thumbs_down")]
)
def test_other_methods_refuse_bad_answers_and_name_kto(tmp_path: Path, good: Any, bad: Any) -> None:
    with pytest.raises(DataRejected, match=r"marks 1 of 2 answers as bad.*lora-compose train kto") as refused:
        read_rows(written(tmp_path, rated([good, bad])))
    assert refused.value.code == "wrong_form"


def kinds(rows: Sequence[Any], directory: Path, rule: LabelRule = LabelRule()) -> Rows:  # noqa: B008
    return read_as_it_is(written(directory, rows), ReadOptions(), rule)


@pytest.mark.parametrize("labels", [[True, False], ["good", "bad"], [1, 1], ["1", ""], [None, "👎"]])
def test_rows_with_marks_keep_them(tmp_path: Path, labels: list[Any]) -> None:
    rows = rated(labels)
    known = [row for row in rows if row["label"] not in (None, "")]
    assert kinds(known, tmp_path).form == "unpaired"
    if len(known) < len(rows):
        with pytest.raises(DataRejected, match=r"rows\.jsonl:"):
            kinds(rows, tmp_path)


@pytest.mark.parametrize("labels", [["spam", "ham"], [0, 3], ["yes", "no"], [None, None]])
def test_a_column_that_is_the_class_of_a_text_is_not_a_mark(tmp_path: Path, labels: list[Any]) -> None:
    assert kinds(rated(labels), tmp_path).form == "instruction"


def test_a_rule_decides_which_column_is_the_mark(tmp_path: Path) -> None:
    rows = kinds(rated([5, 2], "stars"), tmp_path, LabelRule(good_from=4))
    assert rows.dataset["label"][:] == [True, False]
    assert kinds(rated([5, 2], "stars"), tmp_path).form == "instruction"
    with pytest.raises(DataRejected, match="has no column state"):
        kinds(rated([5, 2], "stars"), tmp_path, LabelRule("state"))


def test_supervised_training_refuses_bad_answers_beside_empty_cells(tmp_path: Path) -> None:
    with pytest.raises(DataRejected, match="marks 1 of 2 answers as bad"):
        read_rows(written(tmp_path, rated(["1", "0", ""])))


def marked(*answers: tuple[str, bool]) -> list[dict[str, Any]]:
    return [{"prompt": "Write the word.", "completion": text, "label": good} for text, good in answers]


def test_curating_keeps_marks_and_drops_copies_and_contradictions(tmp_path: Path) -> None:
    long = "a long answer about the harbour of the town"
    given = marked(
        ("FOX", True),
        ("fox", False),
        ("FOX", True),
        ("cat", True),
        ("cat", False),
        (long, True),
        (long, False),
    )
    curated = curate(kinds(given, tmp_path), (), Options())
    left = [(row["completion"][0]["content"], row["label"]) for row in curated.rows]
    assert left == [("FOX", True), ("fox", False)]
    dropped = {result.step: result.dropped for result in curated.results}
    assert (dropped["exact duplicates"], dropped["marked as good and as bad"]) == (1, 4)


def test_near_copies_with_other_marks_stay(tmp_path: Path) -> None:
    good = "The harbour of the town is open from the early morning until late in the evening."
    given = marked(
        (good, True), (good.replace("late", "late,"), False), (good.replace("late", "Late,"), True)
    )
    curated = curate(kinds(given, tmp_path), (), Options())
    assert [row["label"] for row in curated.rows] == [True, False]
