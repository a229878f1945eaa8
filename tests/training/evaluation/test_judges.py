"""Judges: which answers are right, and which rows cannot be judged."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.training.evaluation.judges.json_values import MISSING, equal, inside, parsed
from lora_compose.training.evaluation.judges.named import JUDGES, judge_named, judge_of_row
from lora_compose.training.evaluation.judges.numbers import last_number
from lora_compose.training.evaluation.judges.question import Question

PARIS = "What is the capital of France?\nA) London\nB) Paris\nC) Rome"


def question(answer: str, prompt: str = "?", **fields: Any) -> Question:
    return Question([{"role": "user", "content": prompt}], answer, fields, "rows.jsonl:3")


def score(judge: str, right: str, answer: str, prompt: str = "?", **fields: Any) -> float:
    asked = question(right, prompt, **fields)
    judge_named(judge).check(asked)
    return judge_named(judge)(asked, answer)


@pytest.mark.parametrize(
    ("judge", "right", "answer", "expected"),
    [
        ("exact", "ABLET", " ABLET\n", 1),
        ("exact", "ABLET", "ablet", 0),
        ("exact:case=ignore", "ABLET", "ablet", 1),
        ("contains", "Paris", "It is Paris.", 1),
        ("contains", "Paris", "It is paris.", 0),
        ("contains:case=ignore", "Paris", "It is paris.", 1),
        ("contains-all", "a\nb", "b and a", 1),
        ("contains-all", "a\nb", "only b", 0),
        ("contains-any", "x\nb", "only b", 1),
        ("contains-any", "x\nz", "only b", 0),
        ("regex", r"\d{4}-\d\d", "on 2024-05", 1),
        ("regex", r"^\d+$", "on 5", 0),
        ("json", '{"a": 1, "b": [true, null]}', '{ "b":[true,null],\n"a":1.0}', 1),
        ("json", '{"a": 1}', '{"a": true}', 0),
        ("json", '{"a": 1}', '{"a": 1, "b": 2}', 0),
        ("json", '{"a": 1}', 'Here: {"a": 1}', 0),
        ("json", '{"a": 1}', "", 0),
        ("json", '{"a": "é"}', '{"a": "\\u00e9"}', 1),
        ("json", "[1, 2]", "[2, 1]", 0),
        ("json", "5", "5.0", 1),
        ("json", '{"a": 1}', "[" * 100_000, 0),
        ("json", '{"a": 1}', '{"a": NaN}', 0),
        ("json-inside", '{"a": 1}', 'Here: {"a": 1}. Ask me [anything]!', 1),
        ("json-inside", '{"a": 1}', '```json\n{"a": 1}\n```', 1),
        ("json-inside", '{"a": 1}', 'Not {"a": 2} but\n```\n{"a": 1}\n```', 1),
        ("json-inside", '{"a": {"b": 1}}', 'x {"a": {"b": 1}} y', 1),
        ("json-inside", '{"a": 1}', "no JSON {at all}", 0),
        ("numeric", "1234.5", "It is $1,234.50.", 1),
        ("numeric", "-5", "x = −5 °C", 1),
        ("numeric", "5", "x = -5", 0),
        ("numeric", "10", "between 5-10", 1),
        ("numeric", "4", "GPT-4", 1),
        ("numeric", "#### 42", "So 6 * 7 = 42.", 1),
        ("numeric", "0.5", "1/2", 1),
        ("numeric", "0.5", r"\boxed{\frac{1}{2}}", 1),
        ("numeric", "1500", "1.5e3", 1),
        ("numeric", "1500", "1.5 × 10^3", 1),
        ("numeric", "3.14", "3,14", 1),
        ("numeric", "1234567", "1 234 567 people", 1),
        ("numeric", "1234567", "1.234.567", 1),
        ("numeric", "1234.5", "1.234,5", 1),
        ("numeric", "2024", "on 12/05/2024", 1),
        ("numeric", "7", "none", 0),
        ("numeric", "3.14159", "3.14", 0),
        ("numeric:tolerance=0.01", "3.14159", "3.14", 1),
        ("numeric:relative=0.01", "1000", "1009", 1),
        ("numeric:relative=0.01", "1000", "1011", 0),
        ("numeric:units=same", "12 km", "12 m", 0),
        ("numeric:units=same", "12 apples", "12 apple", 1),
        ("numeric", "12 km", "12 m", 1),
        ("numeric", "50%", "50 %", 1),
        ("rouge-l", "the cat sat", "the cat sat", 1),
        ("rouge-l", "the cat sat", "", 0),
        ("rouge-l", "좋은 아침", "좋은 아침", 1),
        ("chrf", "the cat sat", "the cat sat", 1),
        ("chrf", "the cat sat", "", 0),
    ],
)
def test_an_answer_has_the_expected_score(judge: str, right: str, answer: str, expected: float) -> None:
    assert score(judge, right, answer) == pytest.approx(expected)


def test_overlap_is_between_0_and_1() -> None:
    assert score("rouge-l", "the cat sat", "the cat ran") == pytest.approx(2 / 3)
    assert score("rouge-l", "東京は晴れ", "東京は雨") == pytest.approx(2 * 3 / 9)
    assert 0.3 < score("chrf", "the cat sat", "the cat ran") < 0.9


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("B", 1),
        ("b.", 1),
        ("(B)", 1),
        ("**B**", 1),
        ("The answer is (B).", 1),
        ("The correct answer is: B) Paris", 1),
        ("Answer: B", 1),
        (r"$\boxed{B}$", 1),
        ("Paris", 1),
        ("paris.", 1),
        ("It is Paris, of course.", 1),
        ("B is correct", 1),
        ("b) paris", 1),
        ("(b)", 1),
        ("B because it is", 1),
        ("I think B is right", 1),
        ("A is correct", 0),
        ("B) Paris, because A) London is in England.", 1),
        ("Not (A). The answer is Paris.", 1),
        ("A", 0),
        ("London", 0),
        ("London or Paris", 0),
        ("A good question!", 0),
        ("I do not know", 0),
        ("", 0),
        ("The answer is Madrid.", 0),
    ],
)
def test_a_choice_is_read_by_its_letter_or_its_text(answer: str, expected: float) -> None:
    for right in ("B", "Paris", "B) Paris"):
        assert score("choice", right, answer, PARIS) == expected


def test_options_of_a_choice_come_from_the_row_the_prompt_or_the_alphabet() -> None:
    assert score("choice", "No", "No, yes is wrong.", options=["Yes", "No"]) == 1
    assert score("choice", "2", "The answer is 2.", options={"1": "red", "2": "blue"}) == 1
    assert score("choice", "2", "blue", options={"label": ["1", "2"], "text": ["red", "blue"]}) == 1
    assert score("choice", "2", "blue", options='{"1": "red", "2": "blue"}') == 1
    assert score("choice", "blue", "It is blue", options="red | blue") == 1
    assert score("choice", "D", "I choose D") == 1
    assert score("choice", "A", "A is correct") == 1
    assert score("choice", "New York", "New York", options=["York", "New York"]) == 1


def test_columns_of_the_row_win_over_options_of_the_name() -> None:
    assert score("numeric:tolerance=0.1", "1", "1.5", tolerance=1) == 1
    assert score("contains-any", "ignored", "b", contains=["a", "b"]) == 1
    assert score("regex", "the right answer", "42", pattern=r"^\d+$") == 1


def test_json_has_a_second_figure_for_the_equal_values() -> None:
    asked = question('{"a": 1, "b": {"c": "x"}, "d": []}')
    figures = judge_named("json").figures_of(asked, '{"b": {"c": "x"}, "a": 2, "d": []}')
    assert figures == {"json_leaves": pytest.approx(2 / 3)}
    assert judge_named("json").figures_of(asked, "not JSON") == {"json_leaves": 0}


@pytest.mark.parametrize(
    ("judge", "right", "fields", "reason"),
    [
        ("json", "not JSON", {}, "the right answer is not JSON"),
        ("json-inside", "5", {}, "must be a JSON object or list"),
        ("regex", "(", {}, "not a valid regular expression"),
        ("regex", "x", {"pattern": 5}, "empty or not a text"),
        ("numeric", "seven", {}, "has no number"),
        ("numeric", "7", {"tolerance": "wide"}, "tolerance must be a number"),
        ("numeric:relative=-1", "7", {}, "relative must be a number"),
        ("numeric:units=some", "7", {}, "units must be ignored or same"),
        ("choice", "Madrid", {"options": ["Paris", "Rome"]}, "is not one of the options"),
        ("choice", "A", {"options": 5}, "options must be"),
        ("choice", "A", {"options": ["only"]}, "at least two texts"),
        ("contains", "a", {"contains": [1]}, "a text or a list of texts"),
        ("contains-all", "a", {"contains": []}, "there is no text"),
        ("exact:case=some", "a", {}, "case must be"),
        ("rouge-l", "...", {}, "has no words"),
        ("chrf", "", {}, "has no words"),
    ],
)
def test_a_row_that_cannot_be_judged_is_refused_with_its_place(
    judge: str, right: str, fields: dict[str, Any], reason: str
) -> None:
    with pytest.raises(LoraComposeError, match=reason) as refused:
        judge_named(judge).check(question(right, **fields))
    assert str(refused.value).startswith("rows.jsonl:3: ")
    assert refused.value.code == "cannot_judge"


@pytest.mark.parametrize("name", ["jsn", "", "exact match", "json=1"])
def test_an_unknown_judge_is_refused(name: str) -> None:
    with pytest.raises(LoraComposeError, match="There is no judge") as refused:
        judge_named(name)
    assert refused.value.code == "unknown_judge"


def test_an_unknown_option_of_a_judge_is_refused() -> None:
    with pytest.raises(LoraComposeError, match="Its options are: relative, tolerance, units"):
        judge_named("numeric:tol=1")


OWN = """
lengths = lambda row, answer: len(answer) <= len(row["answer"])
def bad(row, answer): return 2
def none(row, answer): return None
def raising(row, answer): return row["missing"]
def leaving(row, answer): raise SystemExit(3)
def half(row, answer): return 0.5 if row["prompt"][0]["content"] == "?" else row["weight"]
number = 3
"""


def test_a_function_of_the_user_judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "own_judges_here.py"
    file.write_text(OWN)
    assert score(f"{file}:lengths", "abc", "ab") == 1
    assert score(f"{file}:lengths", "abc", "abcd") == 0
    monkeypatch.chdir(tmp_path)
    assert score("own_judges_here:half", "abc", "ab") == 0.5
    assert score("own_judges_here:half", "abc", "ab", "!", weight=0.25) == 0.25


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("bad", "it returned 2, not a number between 0 and 1"),
        ("none", "it returned None"),
        ("raising", "it raised KeyError: 'missing'"),
        ("leaving", "it raised SystemExit: 3"),
    ],
)
def test_a_function_that_fails_is_refused_with_the_row(tmp_path: Path, function: str, reason: str) -> None:
    (tmp_path / "own.py").write_text(OWN)
    with pytest.raises(LoraComposeError, match=reason) as refused:
        judge_named(f"{tmp_path / 'own.py'}:{function}").check(question("a"))
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("rows.jsonl:3: ")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("own.py:number", "has no function number"),
        ("own.py:nothing", "has no function nothing"),
        ("broken.py:judge", "SyntaxError"),
        ("absent.py:judge", "there is no file"),
        ("no_such_module_at_all:judge", "ModuleNotFoundError"),
    ],
)
def test_a_function_that_cannot_be_imported_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "broken.py").write_text("def judge(:")
    with pytest.raises(LoraComposeError, match=reason) as refused:
        judge_named(name)
    assert refused.value.code == "bad_judge"


def test_a_row_names_a_judge_but_no_function() -> None:
    assert judge_of_row("numeric:tolerance=1", "x:1").name == "numeric:tolerance=1"
    for name in ("os:getcwd", "own.py:judge", 5, None):
        with pytest.raises(LoraComposeError, match=r"^x:1: There is no judge"):
            judge_of_row(name, "x:1")


def test_a_search_that_takes_too_long_is_refused() -> None:
    asked = question("(a|aa)+$")
    with pytest.raises(LoraComposeError, match="took more than"):
        judge_named("regex")(asked, "a" * 60 + "b" * 3 + "c")


def test_only_loss_and_perplexity_need_the_likelihood_and_are_better_when_lower() -> None:
    lower = {name for name, judge in JUDGES.items() if judge.lower_is_better}
    assert lower == {"loss", "perplexity"}
    with pytest.raises(LoraComposeError, match="needs the likelihood"):
        judge_named("loss")(question("a"), "a")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_a_json_value_equals_itself_however_it_is_written(value: Any) -> None:
    import json

    assert equal(parsed(json.dumps(value, indent=2, sort_keys=True)), parsed(json.dumps(value)))
    if isinstance(value, dict | list):
        assert equal(inside(f"The result is {json.dumps(value)} here."), value)


@given(st.text(alphabet='{}[]",:1a\\ \n`'))
def test_any_answer_can_be_read(text: str) -> None:
    assert inside(text) is MISSING or isinstance(inside(text), dict | list)
    last_number(text)


@given(st.integers(-(10**12), 10**12))
def test_a_number_is_read_with_and_without_separators(number: int) -> None:
    for text in (f"{number}", f"{number:,}", f"${number:,}.", f"about {number:_} km"):
        found = last_number(text)
        assert found is not None
        assert found.value == number
