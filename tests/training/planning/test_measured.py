"""The plan is as near to the measurements as docs/planning.md says."""

import json
from typing import Any

import pytest

from lora_compose.training.planning.calibration import MEASURED_FILE, MIB, SIZES, MeasuredCase, all_cases

ROWS: list[dict[str, Any]] = json.loads(MEASURED_FILE.read_text())
STATED_ERROR = 0.02
SCRATCH_MIB = 40
"""Memory that is not tensors: the data, the trainer, the libraries' buffers."""


def case_of(row: dict[str, Any]) -> MeasuredCase:
    batch, seq_len = map(int, row["tokens"].split(" x "))
    same = {
        name: row[name] for name in ("size", "method", "gradient_checkpointing", "optimizer", "double_quant")
    }
    return MeasuredCase(seq_len=seq_len, batch=batch, **same)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['size']}-{row['method']}-{row['tokens']}")
def test_a_measured_peak_is_the_planned_one_within_the_stated_error(row: dict[str, Any]) -> None:
    planned = case_of(row).plan.total / MIB
    assert abs(planned - row["measured"]) <= STATED_ERROR * row["measured"] + SCRATCH_MIB


def test_every_case_of_the_script_is_in_the_record() -> None:
    assert {case_of(row) for row in ROWS} <= set(all_cases(list(SIZES)))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_qlora_peaks_below_lora_on_the_larger_models(checkpointing: bool) -> None:
    peaks = {
        row["method"]: row["measured"]
        for row in ROWS
        if row["size"] == "300m" and row["gradient_checkpointing"] is checkpointing
    }
    assert peaks["qlora"] < 0.75 * peaks["lora"]
