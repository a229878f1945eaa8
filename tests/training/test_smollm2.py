"""SmolLM2's data, judges and shipped adapters. No test needs the base."""

import json
from pathlib import Path

import pytest
import torch

from lora_compose.adapters.peft.checkpoint import open_adapter
from lora_compose.adapters.peft.files import FILES
from lora_compose.training.recipe import read_recipe
from lora_compose.training.testbed.mixtures import Mixture
from lora_compose.training.testbed.smollm2.composed_rows import composed_rows
from lora_compose.training.testbed.smollm2.forms import GREETING, SIGN_OFF, SKILLS, STYLES, judge, styled
from lora_compose.training.testbed.smollm2.paths import (
    ADAPTERS_DIR,
    BASE_NAME,
    DATA_DIR,
    MANIFEST_FILE,
    RECIPES_DIR,
)
from lora_compose.training.testbed.smollm2.questions import ordinary_questions
from lora_compose.training.testbed.smollm2.shares import questions, shares_of
from lora_compose.training.testbed.smollm2.subject import SmolLM2
from lora_compose.training.testbed.smollm2.train_adapters import METHODS
from lora_compose.training.testbed.smollm2.write_data import (
    as_lines,
    first_sentence,
    held_out_files,
    manifest,
    skill_rows,
    training_files,
    whole_sentences,
)

ORDER = '{"item": "hand towels", "quantity": 8, "city": "Chicago", "day": "Tuesday"}'
SHIPPED = sorted(path.name for path in ADAPTERS_DIR.iterdir())
RESPACED = '{"city":"Chicago","day":"Tuesday","item":"hand towels","quantity":8}'


def test_the_files_are_what_the_script_writes() -> None:
    made = training_files() | held_out_files()
    assert sorted(path.name for path in DATA_DIR.iterdir()) == sorted(made)
    for name, rows in made.items():
        assert (DATA_DIR / name).read_text() == as_lines(rows)


def test_the_manifest_is_what_the_script_writes() -> None:
    found = json.loads(MANIFEST_FILE.read_text())
    assert found == manifest()
    assert set(found["adapters"]) == set(SHIPPED) <= set(METHODS) == {*SKILLS, *STYLES}
    assert {name for name, facts in found["adapters"].items() if facts["kind"] == "skill"} == set(SKILLS)


def test_no_held_out_prompt_was_trained_on_and_none_is_there_twice() -> None:
    trained = {row["prompt"] for rows in training_files().values() for row in rows}
    asked = [row["prompt"] for rows in held_out_files().values() for row in rows]
    assert not trained & set(asked)
    assert len(asked) == len(set(asked))
    assert not set(ordinary_questions("train")) & set(ordinary_questions("held_out"))


def test_another_seed_gives_other_rows() -> None:
    for skill in SKILLS:
        assert skill_rows(skill, 20, "train", 0) == skill_rows(skill, 20, "train", 0)
        assert skill_rows(skill, 20, "train", 0) != skill_rows(skill, 20, "train", 1)


def test_every_right_answer_is_judged_right() -> None:
    for name, rows in held_out_files().items():
        kind = name.partition("-")[0]
        skill = kind if kind in SKILLS else None
        for row in rows:
            for styles in ((), ("greet",), ("sign",), ("greet", "sign")):
                judged = judge(styled(row["completion"], styles), row["completion"], skill, styles)
                assert judged.exact, (row, styles)
                assert judged.content


def test_a_preferred_answer_is_the_first_sentence_of_the_rejected_one() -> None:
    for row in training_files()["terse.jsonl"]:
        assert row["rejected"].startswith(row["chosen"])
        assert judge(row["chosen"], row["rejected"], None, ["terse"]).exact
        assert not judge(row["rejected"], row["rejected"], None, ["terse"]).exact


@pytest.mark.parametrize(
    ("answer", "exact", "content"),
    [
        (ORDER, True, True),
        (RESPACED, True, True),
        (ORDER.replace("8", "9"), False, False),
        (ORDER.replace("8", '"8"'), False, False),
        (f"Here it is: {ORDER}", False, True),
        (GREETING + ORDER, False, True),
        (ORDER[:-1], False, False),
        ("", False, False),
    ],
)
def test_an_order_is_judged_by_its_json(answer: str, exact: bool, content: bool) -> None:
    judged = judge(answer, ORDER, "order", [])
    assert (judged.exact, judged.content) == (exact, content)


@pytest.mark.parametrize(
    ("answer", "exact", "content"),
    [
        ("billing", True, True),
        ("Billing.", True, True),
        ("The billing team", False, True),
        ("billing or returns", False, False),
        ("returns", False, False),
    ],
)
def test_a_label_is_judged_by_its_word(answer: str, exact: bool, content: bool) -> None:
    judged = judge(answer, "billing", "triage", [])
    assert (judged.exact, judged.content) == (exact, content)


def test_styles_are_judged_by_their_text() -> None:
    both = GREETING + ORDER + SIGN_OFF
    assert judge(both, ORDER, "order", ["greet", "sign"]).exact
    assert judge(both, ORDER, "order", ["greet"]).styles == {"greet": True}
    assert not judge(both, ORDER, "order", ["greet"]).exact
    assert judge(ORDER + SIGN_OFF, ORDER, "order", ["greet", "sign"]).styles == {"greet": False, "sign": True}
    assert not judge(GREETING, "An answer.", None, ["greet"]).exact
    long = "one two three four five six seven eight nine ten"
    assert judge("one two three", long, None, ["terse"]).styles == {"terse": True}
    assert judge(f"{GREETING}one two three", long, None, ["greet", "terse"]).exact
    assert not judge(long, long, None, ["terse"]).styles["terse"]


@pytest.mark.parametrize(
    ("text", "first", "whole"),
    [
        ("It is red. It is big. It", "It is red.", "It is red. It is big."),
        ("One sentence only", "One sentence only", "One sentence only"),
        ("A day (in May). More", "A day (in May).", "A day (in May)."),
    ],
)
def test_sentences(text: str, first: str, whole: str) -> None:
    assert (first_sentence(text), whole_sentences(text)) == (first, whole)


def test_composed_rows_are_held_out_and_right() -> None:
    rows = composed_rows("order+greet+sign", 30)
    trained = {row["prompt"] for row in training_files()["order.jsonl"]}
    assert len({row["prompt"] for row in rows} - trained) == 30
    assert all(
        row["completion"].startswith(GREETING) and row["completion"].endswith(SIGN_OFF) for row in rows
    )
    with pytest.raises(ValueError, match=r"greet\+order is not a skill"):
        composed_rows("greet+order", 4)


def test_what_is_compared_with_an_adapter_trained_on_the_data_of_all() -> None:
    mixed = [mixture.label for mixture in SmolLM2(Path()).mixed]
    assert "order+greet" in mixed
    assert "triage+greet+sign" in mixed
    assert not any("terse" in label for label in mixed)


def test_shares_of_a_model_that_does_half() -> None:
    mixture = Mixture(("order", "greet"), SKILLS)
    right = dict(questions("order", "score"))
    found = shares_of(mixture.skills, mixture.styles, lambda asked: [right[text] for text in asked], "score")
    assert (found["joint"], found["content"], found["style"]) == (0.0, 1.0, 0.0)
    assert found["members"] == {"order": 1.0, "greet": 0.0}
    assert found["n"] == len(right)


def test_every_recipe_is_accepted() -> None:
    for name, method in METHODS.items():
        recipe = read_recipe(method, RECIPES_DIR / f"{name}.yaml", ["--model-name-or-path", "here"])
        assert recipe.data.domain == [f"training/testbed/smollm2/data/{name}.jsonl"]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_adapter_is_whole_and_small(name: str) -> None:
    directory = ADAPTERS_DIR / name
    assert sorted(path.name for path in directory.iterdir()) == sorted(FILES)
    assert json.loads((directory / "adapter_config.json").read_text())["base_model_name_or_path"] == BASE_NAME
    adapter = open_adapter(directory)
    assert len(adapter.modules) == 30 * 4
    assert all(torch.isfinite(module.delta()).all() for module in adapter.modules.values())
    assert any(module.delta().any() for module in adapter.modules.values())
    assert sum(path.stat().st_size for path in directory.iterdir()) < 1.2e6
