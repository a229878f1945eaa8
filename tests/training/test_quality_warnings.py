"""The rule of the warnings, counted on a quality table."""

import json

import pytest

from lora_compose.adapters.merging.advice import Rule
from lora_compose.training.testbed.paths import ADAPTERS_DIR, TESTBED_DIR
from lora_compose.training.testbed.quality.warnings import Counts, Outcome, outcomes, stacks_of

QUALITY_FILE = TESTBED_DIR / "quality.json"


def test_the_rule_is_right_more_often_than_a_guess_on_the_published_table() -> None:
    found = outcomes(stacks_of(json.loads(QUALITY_FILE.read_text())), ADAPTERS_DIR)
    counts = Counts.of(found)
    failing = sum(one.fails for one in found) / len(found)
    assert len(found) == 28
    assert counts.precision > failing


def test_a_stricter_rule_warns_of_fewer_pairs() -> None:
    table = stacks_of(json.loads(QUALITY_FILE.read_text()))
    strict = outcomes(table, ADAPTERS_DIR, Rule(cosine=0.5, ratio=99.0))
    assert all(one.reasons == () for one in strict)


def test_precision_and_recall_count_hits() -> None:
    rows = [(0.5, ("much_larger",)), (0.5, ()), (1.0, ("much_larger",)), (0.2, ("much_larger",)), (1.0, ())]
    counts = Counts.of([Outcome("a+b", kept, reasons, 0.0, 1.0) for kept, reasons in rows])
    assert counts.precision == pytest.approx(2 / 3)
    assert counts.recall == pytest.approx(2 / 3)
