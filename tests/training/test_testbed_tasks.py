"""The testbed's tasks are plain functions with exactly one right answer."""

import subprocess
import sys
from itertools import permutations

import pytest

from lora_compose.training.testbed.corpus import OPERATIONS, conversation, training_rows
from lora_compose.training.testbed.language import CODES, SKILLS, STYLES, answer, is_held_out, prompt, prompts

ASKED = [
    ("roll", (), "table", "ablet"),
    ("dbl", (), "cat", "ccaatt"),
    (None, ("upper",), "table", "TABLE"),
    ("roll", ("upper",), "table", "ABLET"),
    ("roll", ("polite", "wrap"), "table", "[ablet] thx"),
    (None, ("polite", "bang", "okay", "wrap", "upper"), "ab", "ok [AB]! thx"),
]


@pytest.mark.parametrize(("skill", "styles", "word", "right"), ASKED)
def test_an_answer_is_what_a_reader_of_the_summary_expects(
    skill: str | None, styles: tuple[str, ...], word: str, right: str
) -> None:
    assert answer(skill, styles, word) == right


def test_the_order_of_styles_does_not_change_the_answer() -> None:
    answers = {answer("roll", order, "chair") for order in permutations(STYLES)}
    assert len(answers) == 1


def test_an_unknown_style_or_skill_is_named() -> None:
    with pytest.raises(KeyError, match="loud"):
        answer(None, ("loud",), "table")
    with pytest.raises(KeyError, match="sing"):
        answer("sing", (), "table")


def test_asked_words_are_distinct_held_out_and_fixed_by_the_seed() -> None:
    asked = prompts(200, seed=7, skill="roll")
    assert asked == prompts(200, seed=7, skill="roll") != prompts(200, seed=8, skill="roll")
    assert len({word for _, word in asked}) == 200
    assert all(is_held_out(word) and text == prompt("roll", word) for text, word in asked)


def test_codes_are_asked_of_known_names_only() -> None:
    assert {word for _, word in prompts(100, seed=1, skill="code")} <= set(CODES)


def test_the_general_data_holds_no_skill_and_no_held_out_word() -> None:
    import random

    rng = random.Random(3)
    messages = [m["content"] for _ in range(500) for m in conversation(rng) if m["role"] == "user"]
    asked = [text.split() for text in messages if text.split()[-2:-1] and text.split()[-2] in OPERATIONS]
    assert asked
    assert not any(set(words) & set(SKILLS) or is_held_out(words[-1]) for words in asked)


@pytest.mark.parametrize("style", sorted(STYLES))
def test_a_style_adapter_never_sees_a_skill_or_its_own_tag(style: str) -> None:
    asked = [row["prompt"][0]["content"].split() for row in training_rows(style, 300, seed=0)]
    assert not any(set(words) & {*SKILLS, STYLES[style].tag} for words in asked)


def test_the_tasks_need_no_torch() -> None:
    code = "import sys, lora_compose.training.testbed.language; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
