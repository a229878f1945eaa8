"""The published tables are what the findings beside them say."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lora_compose.benchmarks.gpu.report import (
    TABLES,
    Finding,
    answers_table,
    by_kernels,
    main,
    pooled_table,
    read,
    speed_table,
)

ROOT = Path(__file__).resolve().parents[3]
RESULTS = sorted((ROOT / "benchmarks" / "results" / "gpu").glob("*.jsonl"))


def throughput(check: str, speed: float) -> Finding:
    return {"check": check, "concurrent": 8, "tokens_per_second": speed, "decode_ms_p50": 5.0}


@pytest.mark.parametrize("table", TABLES)
def test_the_page_has_the_tables_of_the_results(table: Callable[[Sequence[Finding]], str]) -> None:
    text = table(read(RESULTS))
    assert text
    assert text in (ROOT / "docs" / "gpu.md").read_text()


def test_speed_is_the_mean_of_the_repeats_and_its_ratio_to_the_base() -> None:
    slow = [throughput("throughput:single", 40.0), throughput("throughput:single", 60.0)]
    table = speed_table([throughput("throughput:base", 100.0), *slow])
    assert "| one adapter | 50 | 0.500 | 5.00 |" in table


def test_findings_of_another_part_make_no_table() -> None:
    findings: list[Finding] = [{"part": "small", "check": "end", "ok": True}]
    assert [table(findings) for table in TABLES] == ["", "", ""]


def test_a_mix_that_was_not_measured_has_a_dash() -> None:
    found = {"part": "small", "check": "logprobs:base", "fused": "", "mixed_batch": 0.01, "alone": 0.02}
    assert "| base | 0.0100 / 0.0200 | - | - |" in answers_table([found | {"against_base": 0.0}])


def test_figures_of_the_two_kinds_of_kernels_are_never_averaged() -> None:
    old, new = (
        throughput("throughput:base", 10.0),
        throughput("throughput:base", 30.0) | {"kernels": "pooled"},
    )
    assert by_kernels([old, new]) == {"vllm": [old], "pooled": [new]}


def test_our_kernels_have_a_column_for_each_kind_of_batch() -> None:
    findings: list[Finding] = [
        {"check": "pooled:o:single", "rows": 8, "us": 4.25},
        {"check": "pooled:o:stack4", "rows": 8, "us": 6.0},
        {"check": "pooled:o:single", "rows": 32, "us": 5.0},
        {"check": "pooled self-check:torch.float16", "ok": True},
    ]
    table = pooled_table(findings)
    assert "| layer | rows | single, µs | stack4, µs |" in table
    assert "| o | 8 | 4.2 | 6.0 |" in table
    assert "| o | 32 | 5.0 | - |" in table


def test_the_command_prints_the_tables_of_the_results(capsys: pytest.CaptureFixture[str]) -> None:
    main([str(path) for path in RESULTS])
    assert "LoRA kernels: vllm" in capsys.readouterr().out
