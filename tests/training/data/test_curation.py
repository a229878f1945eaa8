"""Curation finds planted faults, reports its steps, and finds nothing the second time."""

import json
import re
from pathlib import Path

import pytest

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.training.data import preference_checks as preferences
from lora_compose.training.data.curation import Curated, Options, curate
from lora_compose.training.data.messages import Row
from lora_compose.training.data.pii import Masker, find
from lora_compose.training.data.rows import Rows, as_rows, whole_text
from tests.training.data.blind.measured import SEEDS, cases, count, count_prose
from tests.training.data.blind.prose import PROSE
from tests.training.data.personal_texts import MAILS, PLAIN
from tests.training.data.planted import Planted, made, personal, planted

RECALL, PRECISION = 0.98, 0.95


def instruction(rows: list[Row]) -> Rows:
    return as_rows("planted", "instruction", rows)


def judged(found: set[int], true: set[int]) -> tuple[float, float]:
    """Recall and precision."""
    return len(found & true) / len(true), len(found & true) / max(len(found), 1)


def gone(before: list[Row], after: Curated) -> set[int]:
    left = {id_of(row) for row in after.rows}
    return {i for i, row in enumerate(before) if id_of(row) not in left}


def id_of(row: Row) -> str:
    return json.dumps(row, sort_keys=True)


@pytest.fixture(scope="module", params=[1, 2, 3])
def truth(request: pytest.FixtureRequest) -> Planted:
    return planted(request.param)


def test_every_copy_and_near_copy_is_found_and_little_else(truth: Planted) -> None:
    curated = curate(instruction(truth.rows), [], Options(mask=False))
    recall, precision = judged(gone(truth.rows, curated), truth.exact | truth.near)
    assert recall >= RECALL
    assert precision >= PRECISION


def test_questions_of_the_evaluation_are_refused_and_can_be_dropped(truth: Planted) -> None:
    own = truth.rows[: len(truth.rows) - len(truth.exact) - len(truth.near)]
    with pytest.raises(LoraComposeError, match="--drop-leaks") as refused:
        curate(instruction(own), [instruction(truth.evaluation)], Options(mask=False))
    assert refused.value.code == "leaked"
    curated = curate(instruction(own), [instruction(truth.evaluation)], Options(mask=False, drop_leaks=True))
    recall, precision = judged(gone(own, curated), truth.leaks)
    assert recall >= RECALL
    assert precision >= PRECISION


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_kind_of_personal_data_is_found_and_no_look_alike(seed: int) -> None:
    cases = personal(seed)
    for kind in sorted({kind for _, kind, _ in cases if kind}):
        own = [(text, item) for text, planted_kind, item in cases if planted_kind == kind]
        hits = sum(any((f.kind, f.value) == (kind, item) for f in find(text)) for text, item in own)
        assert hits / len(own) >= RECALL, kind
    true = sum(kind is not None for _, kind, _ in cases)
    false = sum(len(find(text)) for text, kind, _ in cases if kind is None)
    assert true / (true + false) >= PRECISION


MARK = re.compile(r"\[([A-Z]+)\|([^\]]*)\]")


def test_personal_data_in_chats_mails_and_code_are_found() -> None:
    for marked in MAILS:
        items = [(mark[1], mark[2]) for mark in MARK.finditer(marked)]
        text = MARK.sub(lambda mark: mark[2], marked)
        assert [(found.kind, found.value) for found in find(text)] == items, text


def test_code_versions_sections_and_reserved_addresses_are_left_alone() -> None:
    assert {text: found for text in PLAIN if (found := find(text))} == {}


def test_precision_and_recall_on_texts_that_the_detectors_were_not_written_with() -> None:
    """The values of docs/data.md, for each kind: a change that makes one worse is seen here."""
    found = count([case for seed in SEEDS for case in cases(seed)])
    assert {name: counts.missed for name, counts in found.items() if counts.recall < 0.95} == {}
    assert {name: counts.wrong for name, counts in found.items() if counts.precision < 0.98} == {}
    prose = list(count_prose().values())
    given, right, wrong = (sum(getattr(c, name) for c in prose) for name in ("given", "found", "false"))
    assert right / given >= 0.96
    assert right / (right + wrong) >= 0.94


def test_a_second_pass_over_texts_in_six_languages_and_code_changes_nothing() -> None:
    texts = [case.text for case in cases(SEEDS[0])]
    texts += [MARK.sub(lambda mark: mark[2], text) for texts in PROSE.values() for text in texts]
    once = [Masker().mask(text) for text in texts]
    assert [Masker().mask(text) for text in once] == once


def test_an_answer_is_masked_only_where_it_repeats_its_prompt() -> None:
    row = made("Who is a@b.com? Call +1 212-555-0147", "a@b.com is at c@d.org")
    masker = Masker()
    masked = masker.mask_row(row, answers=False)
    assert masked["completion"][0]["content"] == "<EMAIL_1> is at c@d.org"
    assert masker.unmasked == {"EMAIL": 1}
    assert Masker().mask_row(row, answers=True)["completion"][0]["content"] == "<EMAIL_1> is at <EMAIL_2>"


def test_a_second_pass_changes_nothing(truth: Planted) -> None:
    rows = [*truth.rows, *(made(text, text) for text, _, _ in personal(1, each=5))]
    first = curate(instruction(rows), [], Options(longest=400))
    second = curate(instruction(first.rows), [], Options(longest=400))
    assert second.rows == first.rows
    assert sum(result.dropped for result in second.results) == 0
    assert second.results[0].touched == 0


def test_the_same_value_has_the_same_tag_and_masks_are_not_masked() -> None:
    masker = Masker()
    text = masker.mask("a@b.com wrote to c@d.org, then a@b.com called +1 212-555-0147")
    assert text == "<EMAIL_1> wrote to <EMAIL_2>, then <EMAIL_1> called <PHONE_1>"
    assert masker.mask(text) == text
    assert masker.counts == {"EMAIL": 3, "PHONE": 1}


def pair(asked: str, chosen: str, rejected: str) -> Row:
    return {
        "prompt": [{"role": "user", "content": asked}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


def test_identical_and_contradictory_pairs_are_dropped() -> None:
    rows = [pair("q1", "a", "A "), pair("q2", "a", "b"), pair("q2", "b", "a"), pair("q3", "a", "b")]
    curated = curate(as_rows("pairs", "preference", rows), [], Options(near=1.0))
    assert [whole_text(row) for row in curated.rows] == ["q3\na\nb"]


@pytest.mark.parametrize(
    ("share", "fires"), [(0.5, False), (0.55, False), (0.7, True), (0.1, True), (1.0, True)]
)
def test_length_bias_is_reported_and_can_be_balanced(share: float, fires: bool) -> None:
    rows = [pair(f"q{i}", "x" * (30 if i < round(200 * share) else 10), "y" * 20) for i in range(200)]
    assert preferences.length_bias(rows).fires == fires
    kept = [rows[i] for i in preferences.balanced(rows, seed=0)]
    if 0 < share < 1:
        assert preferences.length_bias(kept).accuracy == 0.5
        assert len(kept) == 2 * round(200 * min(share, 1 - share))


def test_rows_out_of_bounds_and_in_other_languages_go_where_bounds_are_given() -> None:
    english = made("why", "The weather is fine today and everybody is happy about the sunshine outside.")
    german = made("warum", "Das Wetter ist heute schön und alle freuen sich über den Sonnenschein draußen.")
    curated = curate(
        instruction([english, german, made("q", "x")]), [], Options(shortest=5, languages=["en"])
    )
    assert curated.rows == [english]


def test_each_step_reports_its_rows_with_examples(tmp_path: Path) -> None:
    rows = [made("ask me", "yes"), made("ASK me", "yes")]
    results = {result.step: result for result in curate(instruction(rows), [], Options()).results}
    assert results["exact duplicates"].dropped == 1
    assert results["exact duplicates"].examples == ("ASK me\nyes",)
