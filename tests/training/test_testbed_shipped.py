"""The shipped base and adapters are whole, small, and as good as measured.json says."""

import json

import pytest
from safetensors import safe_open

from lora_compose.adapters.peft.files import FILES
from lora_compose.training.testbed.language import SKILLS, STYLES, answer, prompts
from lora_compose.training.testbed.measure import AdaptedBase, Stack, all_stacks
from lora_compose.training.testbed.paths import ADAPTERS_DIR, BASE_DIR, BASE_NAME, MEASURED_FILE, TESTBED_DIR

MEASURED = json.loads(MEASURED_FILE.read_text())["accuracy"]
SAMPLE = 40


@pytest.fixture(scope="module")
def testbed() -> AdaptedBase:
    return AdaptedBase(BASE_DIR, ADAPTERS_DIR)


def test_every_skill_and_style_ships_as_two_files_that_name_the_base() -> None:
    assert {path.name for path in ADAPTERS_DIR.iterdir()} == {*SKILLS, *STYLES}
    for directory in ADAPTERS_DIR.iterdir():
        assert sorted(path.name for path in directory.iterdir()) == sorted(FILES)
        config = json.loads((directory / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == BASE_NAME


def test_the_testbed_stays_small() -> None:
    assert sum(path.stat().st_size for path in TESTBED_DIR.rglob("*") if path.is_file()) < 20e6


def test_the_base_has_room_for_long_prompts_and_full_precision() -> None:
    config = json.loads((BASE_DIR / "config.json").read_text())
    assert config["max_position_embeddings"] == 2048
    with safe_open(BASE_DIR / "model.safetensors", "pt") as weights:
        assert {weights.get_slice(key).get_dtype() for key in weights.keys()} == {"F32"}  # noqa: SIM118


@pytest.mark.parametrize(
    "stack", [*all_stacks(list(SKILLS)), *all_stacks(list(STYLES))[: len(STYLES)]], ids=str
)
def test_an_adapter_alone_is_as_good_as_measured(testbed: AdaptedBase, stack: Stack) -> None:
    assert testbed.accuracy(stack, SAMPLE, seed=1) == pytest.approx(MEASURED["stacks"][stack.label], abs=0.15)


@pytest.mark.parametrize("style", ["upper", "polite"])
def test_a_skill_and_a_style_stacked_do_both(testbed: AdaptedBase, style: str) -> None:
    stack = Stack("roll", (style,))
    found = testbed.accuracy(stack, SAMPLE, seed=1)
    assert found >= 0.6
    assert found == pytest.approx(MEASURED["stacks"][stack.label], abs=0.2)


def test_the_base_alone_has_no_skill(testbed: AdaptedBase) -> None:
    for skill in SKILLS:
        asked = prompts(SAMPLE, seed=1, skill=skill)
        answers = testbed.ask([], [text for text, _ in asked])
        assert sum(a == answer(skill, (), word) for a, (_, word) in zip(answers, asked, strict=True)) < 4


def test_the_base_alone_follows_tags_and_earlier_turns(testbed: AdaptedBase) -> None:
    assert testbed.ask([], ["/U say hello", "/W /P say hello"]) == ["HELLO", "[hello] thx"]
    chat = "say hello<|assistant|>hello</s><|user|>drop table"
    assert testbed.ask([], [chat]) == ["able"]
