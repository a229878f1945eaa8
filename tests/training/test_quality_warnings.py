"""The rule of the warnings, counted on a quality table."""

from pathlib import Path

import pytest

from lora_compose.adapters.merging.advice import Rule
from lora_compose.training.testbed.paths import ADAPTERS_DIR
from lora_compose.training.testbed.quality.cells import cells_of
from lora_compose.training.testbed.quality.toy import Toy
from lora_compose.training.testbed.quality.warnings import Counts, Outcome, outcomes, shares_alone
from lora_compose.training.testbed.smollm2.paths import ADAPTERS_DIR as SMOLLM2_ADAPTERS
from lora_compose.training.testbed.smollm2.paths import MEASURED_FILE
from lora_compose.training.testbed.smollm2.subject import SmolLM2


def test_the_rule_is_right_more_often_than_a_guess_on_the_published_table() -> None:
    found = outcomes(cells_of(Toy().file, 0), ADAPTERS_DIR)
    counts = Counts.of(found)
    failing = sum(one.fails for one in found) / len(found)
    assert len(found) == 28
    assert counts.precision > failing
    assert (counts.hits, counts.false_alarms, counts.missed, counts.quiet) == (9, 7, 3, 9)


def test_a_stricter_rule_warns_of_fewer_pairs() -> None:
    table = cells_of(Toy().file, 0)
    strict = outcomes(table, ADAPTERS_DIR, Rule(cosine=0.5, ratio=99.0))
    assert all(one.reasons == () for one in strict)


def test_precision_and_recall_count_hits() -> None:
    rows = [(0.5, ("much_larger",)), (0.5, ()), (1.0, ("much_larger",)), (0.2, ("much_larger",)), (1.0, ())]
    counts = Counts.of([Outcome("a+b", kept, reasons, 0.0, 1.0) for kept, reasons in rows])
    assert [counts.precision, counts.recall] == pytest.approx([2 / 3, 2 / 3])


def test_a_member_is_compared_with_what_it_does_alone() -> None:
    alone = shares_alone(MEASURED_FILE)
    assert alone["order"] == 0.825
    found = outcomes(cells_of(SmolLM2(Path()).file, 0), SMOLLM2_ADAPTERS, alone=alone)
    assert {one.pair: one.fails for one in found}["triage+terse"] is False  # 0.78 of 0.80
    assert Counts.of(found) == Counts(hits=8, false_alarms=2, missed=0, quiet=0)
