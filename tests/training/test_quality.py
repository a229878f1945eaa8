"""The shares in the table of composition quality, for invented answers and for the real base."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from lora_compose.adapters.peft.checkpoint import open_adapter
from lora_compose.training.testbed.demo.table import does_both
from lora_compose.training.testbed.language import answer
from lora_compose.training.testbed.mixtures import Mixture, all_mixtures
from lora_compose.training.testbed.paths import ADAPTERS_DIR, BASE_DIR
from lora_compose.training.testbed.quality.baselines import MIXED, MergedBase, combined_rows
from lora_compose.training.testbed.quality.page import MARK, write_page
from lora_compose.training.testbed.quality.quality import WAYS
from lora_compose.training.testbed.quality.shares import shares_of
from lora_compose.training.testbed.train_adapters import RECIPES

MIXTURES = [*all_mixtures(2), *all_mixtures(3)]


@pytest.fixture(scope="module")
def testbed() -> MergedBase:
    return MergedBase(BASE_DIR)


def answering(skilled: bool, styles: Sequence[str]) -> object:
    """A model that answers with the requested skill or repeats the word, in some styles."""

    def ask(prompts: Sequence[str]) -> list[str]:
        asked = [text.split() for text in prompts]
        return [answer(name if skilled and name != "say" else None, styles, word) for name, word in asked]

    return ask


def test_there_are_28_pairs_and_56_triples() -> None:
    assert (len(all_mixtures(2)), len(all_mixtures(3)), len({m.label for m in MIXTURES})) == (28, 56, 84)


@pytest.mark.parametrize("mixture", [*all_mixtures(2), *MIXED], ids=str)
def test_a_model_that_does_all_keeps_all(mixture: Mixture) -> None:
    found = shares_of(mixture, answering(True, mixture.styles), n=5, seed=1)  # type: ignore[arg-type]
    assert (found.joint, found.content, found.style) == (1.0, 1.0, 1.0)
    assert found.members == dict.fromkeys(mixture.members, 1.0)


def test_losses_are_reported_for_each_member() -> None:
    mixture = Mixture(("roll", "upper", "polite"))
    found = shares_of(mixture, answering(False, ["polite"]), n=5, seed=1)  # type: ignore[arg-type]
    assert found.members == {"roll": 0.0, "upper": 0.0, "polite": 1.0}
    assert (found.joint, found.content, found.style) == (0.0, 0.0, 0.0)


def test_the_base_is_the_same_to_the_bit_after_an_adapter(testbed: MergedBase) -> None:
    before = {name: weight.clone() for name, weight in testbed.model.state_dict().items()}
    with testbed.holding(open_adapter(ADAPTERS_DIR / "roll")):
        assert testbed.ask(["roll table"]) == ["ablet"]
    after = testbed.model.state_dict()
    assert all(before[name].equal(after[name]) for name in before)


@pytest.mark.parametrize("way", ["stack", "linear", "cat→svd"])
def test_a_way_of_composing_does_both(testbed: MergedBase, way: str, tmp_path: Path) -> None:
    adapter = WAYS[way].compose(Mixture(("roll", "upper")), ADAPTERS_DIR, tmp_path)
    with testbed.holding(adapter):
        (text,) = testbed.ask(["roll table"])
    assert does_both(text, "roll", ["upper"], "table")


def test_combined_rows_are_the_rows_of_every_member() -> None:
    mixture = Mixture(("upper", "wrap"))
    rows = combined_rows(mixture, seed=0)
    assert len(rows) == sum(RECIPES[name].steps * RECIPES[name].batch for name in mixture.members)
    replies = [row["completion"][0]["content"] for row in rows[:200]]
    assert any(text.isupper() for text in replies)
    assert any(text.startswith("[") and text.islower() for text in replies)


def test_the_page_keeps_the_text_above_the_mark(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Mine\n{MARK}\nold")
    cell = {"joint": 0.5, "content": 0.75, "style": 1.0, "members": {"roll": 0.75, "upper": 1.0}}
    record = {"asked": {"n": 4, "density": 0.5}, "kept": {"roll+upper": dict.fromkeys(WAYS, cell)}}
    write_page(record, page)
    text = page.read_text()
    assert text.startswith("# Mine")
    assert "old" not in text
    assert "| roll+upper | **0.50** (0.75 / 1.00)" in text
