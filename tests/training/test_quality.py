"""The shares in the table of composition quality, for invented answers and for the real base."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lora_compose.adapters.peft.checkpoint import open_adapter
from lora_compose.training.testbed.demo.table import does_both
from lora_compose.training.testbed.language import answer
from lora_compose.training.testbed.merged_base import MergedBase
from lora_compose.training.testbed.mixtures import Mixture, all_mixtures
from lora_compose.training.testbed.paths import ADAPTERS_DIR
from lora_compose.training.testbed.quality.cells import MIXED, SEARCHED, Job, cells_of, jobs, measure
from lora_compose.training.testbed.quality.intervals import interval
from lora_compose.training.testbed.quality.page import MARK, write_page
from lora_compose.training.testbed.quality.shares import shares_of
from lora_compose.training.testbed.quality.toy import COMPARED, Toy, combined_rows
from lora_compose.training.testbed.quality.ways import WAYS
from lora_compose.training.testbed.smollm2.subject import SmolLM2
from lora_compose.training.testbed.train_adapters import RECIPES

MIXTURES = [*all_mixtures(2), *all_mixtures(3)]


@pytest.fixture(scope="module")
def testbed() -> MergedBase:
    return Toy().load()


def answering(skilled: bool, styles: Sequence[str]) -> object:
    """A model that answers with the requested skill or repeats the word, in some styles."""

    def ask(prompts: Sequence[str]) -> list[str]:
        asked = [text.split() for text in prompts]
        return [answer(name if skilled and name != "say" else None, styles, word) for name, word in asked]

    return ask


def test_there_are_28_pairs_and_56_triples() -> None:
    assert (len(all_mixtures(2)), len(all_mixtures(3)), len({m.label for m in MIXTURES})) == (28, 56, 84)


@pytest.mark.parametrize("mixture", [*all_mixtures(2), *COMPARED], ids=str)
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
    adapter = WAYS[way].compose([ADAPTERS_DIR / "roll", ADAPTERS_DIR / "upper"], tmp_path)
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


CELL = {"joint": 0.5, "content": 0.75, "style": 1.0, "members": {"roll": 0.75, "upper": 1.0}, "n": 4}


def test_the_page_keeps_the_text_above_the_mark(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Mine\n{MARK}\nold")
    write_page([(Toy(), {"0": {"roll+upper": dict.fromkeys(WAYS, CELL)}}), (SmolLM2(Path()), {})], page)
    text = page.read_text()
    assert text.startswith("# Mine")
    assert "old" not in text
    assert "| roll+upper | **0.50** (0.75 / 1.00)" in text
    assert "SmolLM2" not in text


def test_the_page_of_an_unfinished_run_leaves_out_what_is_missing(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    searched = CELL | {
        "composition": "roll+upper:0.8",
        "trials": 3,
        "searched_before": 0.25,
        "searched_after": 0.75,
    }
    cells = {"roll+upper": {"stack": CELL, SEARCHED: searched}, "roll+wrap": {"stack": CELL}}
    write_page([(Toy(), {"0": cells, "1": {"roll+upper": {"stack": CELL | {"joint": 1.0}}}})], page)
    text = page.read_text()
    assert "| roll+upper | 0.50 | 0.50 | 0.25 | 0.75 | 3 | roll+upper:0.8 |" in text
    assert "2 seeds" in text
    assert "ties" not in text


def test_an_interval_holds_the_mean_and_narrows_with_answers() -> None:
    few = interval([[CELL | {"n": 10}]], lambda cell: float(cell["joint"]))
    many = interval([[CELL | {"n": 1000}]], lambda cell: float(cell["joint"]))
    assert few.low < 0.3 < 0.45 < many.low < many.mean == 0.5 < many.high < 0.55 < 0.7 < few.high
    assert str(many).startswith("0.50 (0.4")


def test_an_interval_of_seeds_covers_their_difference() -> None:
    seeds = [[CELL | {"joint": joint, "n": 10**6}] for joint in (0.2, 0.5, 0.8)]
    found = interval(seeds, lambda cell: float(cell["joint"]))
    assert found.low < 0.35
    assert found.high > 0.65


def test_the_pairs_of_a_skill_and_a_style_come_first() -> None:
    found = jobs(SmolLM2(Path()))
    assert [job.mixture.kind for job in found[:4]] == ["skill+style"] * 4
    assert {job.way for job in found[:4]} == {"stack"}
    assert Job(Mixture(("order", "greet"), ("order", "triage")), SEARCHED) in found
    assert sum(job.way == MIXED for job in jobs(Toy())) == len(COMPARED)


def test_a_cell_is_measured_once_and_kept_for_its_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = Toy(file=tmp_path / "quality.json")
    asked = []

    def measured(bench: Any, job: Any) -> Any:
        asked.append((bench.seed, job.mixture.label))
        return CELL

    monkeypatch.setattr(Toy, "load", lambda _: None)
    monkeypatch.setattr("lora_compose.training.testbed.quality.cells.Bench.measure", measured)
    wanted = [job for job in jobs(subject) if job.way == "stack"][:2]
    assert [cell for _, cell in measure(subject, 0, wanted[:1])] == [CELL]
    assert len(list(measure(subject, 0, wanted))) == 1
    assert len(list(measure(subject, 1, wanted))) == 2
    assert [seed for seed, _ in asked] == [0, 0, 1, 1]
    assert set(cells_of(subject.file, 0)) == {job.mixture.label for job in wanted}
