"""The language of a row is that of its question and its answer together."""

from lora_compose.training.data.messages import Row
from lora_compose.training.data.outliers import languages


def row(prompt: str, completion: str) -> Row:
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "completion": [{"role": "assistant", "content": completion}],
    }


def test_a_short_answer_does_not_hide_the_language_of_its_question() -> None:
    rows = [
        row("Quelle est la capitale de la France, et combien de personnes y vivent ?", "Paris"),
        row("Wie viele Einwohner hat die Stadt, und wo liegt sie?", "42"),
        row("ok?", "Die Stadt liegt an einem großen Fluss und hat viele Einwohner."),
        row("ok?", "ok"),
    ]
    assert languages(rows) == ["fr", "de", "de", "?"]
