"""Faults that are planted in a server: each must show in the report."""

from pathlib import Path

from benchmarks.latency.document import BenchmarkResult
from benchmarks.latency.findings import Finding, Findings, findings
from benchmarks.latency.plan import Cell, Plan
from benchmarks.latency.run import Where, measure
from benchmarks.latency.tables import doubts
from tests.benchmarks.latency.faulty_server import Fault, faulty

PLAN = Plan(
    arms="single",
    concurrency=(2,),
    rates=(40.0,),
    requests=24,
    repeats=2,
    output_tokens=4,
    timeline_seconds=0,
)
CLOSED, OPEN = Cell("closed", concurrency=2), Cell("open", rate=40.0)


def measured(fault: Fault) -> tuple[BenchmarkResult, Findings]:
    with faulty(fault) as url:
        document = measure(PLAN, Where(url, ("a",), "", Path()), lambda done, total, what: None)
    return document, findings(document)


def flags(found: Findings, cell: Cell) -> str:
    return "; ".join(flag for one in found.all if one.cell == cell for flag in one.flags)


def one(found: Findings, cell: Cell, arm: str) -> Finding:
    finding = found.of(cell, arm)
    assert finding is not None
    return finding


def test_a_sound_server_raises_no_doubt_about_its_answers() -> None:
    document, found = measured(Fault())
    assert found.failed == 0
    assert not [line for line in doubts(document, found) if "standstill" in line or "failed" in line]


def test_a_stall_of_300_ms_is_a_standstill_in_the_report() -> None:
    # 32 requests learn what is right and warm up; the stalled one comes in the passes.
    _, found = measured(Fault(stall_at_request=60, one_at_a_time=True))
    stalls = [stall for each in found.all for stall in each.stalls]
    assert stalls
    assert max(stall.seconds for stall in stalls) > 0.25


def test_fast_wrong_answers_are_failures_and_no_throughput() -> None:
    _, found = measured(Fault(lies_beside_others=True))
    closed = one(found, CLOSED, "single")
    assert closed.failures["wrong_answer"] > 0
    assert closed.output_throughput is not None
    assert "wrong answer" in flags(found, CLOSED)


def test_dropped_requests_are_counted_and_the_repeat_gives_no_ratio() -> None:
    _, found = measured(Fault(drops_every=20))
    assert found.failed >= 6
    assert "failed: http 500" in flags(found, CLOSED) + flags(found, OPEN)
    assert "output_throughput" not in one(found, CLOSED, "single").ratios


def test_a_server_that_falls_behind_is_called_over_saturated() -> None:
    _, found = measured(Fault(token_seconds=0.02, one_at_a_time=True))
    assert "over-saturated" in flags(found, OPEN)
    assert "over-saturated" not in flags(found, CLOSED)
