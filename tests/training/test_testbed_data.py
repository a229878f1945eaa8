"""The data files of the shipped recipes."""

from lora_compose.training.data.rows import read_rows
from lora_compose.training.testbed.language import is_held_out
from lora_compose.training.testbed.paths import DATA_DIR, QUESTIONS_DIR
from lora_compose.training.testbed.write_data import as_lines, files, questions


def test_the_files_are_what_the_script_writes() -> None:
    for directory, made in ((DATA_DIR, files()), (QUESTIONS_DIR, questions())):
        assert sorted(path.name for path in directory.iterdir()) == sorted(made)
        for name, rows in made.items():
            assert (directory / name).read_text() == as_lines(rows)


def test_no_word_that_is_asked_for_was_trained_on() -> None:
    for name in ("roll.jsonl", "roll-undecided.jsonl", "upper-preferred.jsonl"):
        rows = read_rows(str(DATA_DIR / name)).dataset
        assert not any(is_held_out(row["prompt"][0]["content"].split()[-1]) for row in rows)
    held_out = read_rows(str(DATA_DIR / "roll-held-out.jsonl")).dataset
    assert all(is_held_out(row["prompt"][0]["content"].split()[-1]) for row in held_out)
