"""Faults of a server. Each must be visible in the report."""

import shutil
from dataclasses import replace
from pathlib import Path

from lora_compose.benchmarks.client import open_client
from lora_compose.benchmarks.servers import EMBEDDED_ADAPTERS
from lora_compose.benchmarks.serving.benchmark import measure
from lora_compose.benchmarks.serving.load import Words
from lora_compose.benchmarks.serving.report.tables import caveats
from lora_compose.benchmarks.serving.results.document import AdapterVersion, BenchmarkResult
from lora_compose.benchmarks.serving.results.plan import Cell, Plan
from lora_compose.benchmarks.serving.results.summary import ArmSummary, Summary, summarize
from lora_compose.benchmarks.serving.systems import SystemsUnderTest, Where
from lora_compose.benchmarks.serving.timeline import timeline
from tests.benchmarks.serving.faulty_server import Fault, faulty

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


def measured(fault: Fault) -> tuple[BenchmarkResult, Summary]:
    with faulty(fault) as url:
        document = measure(PLAN, Where(url, ("a",), "", Path()), lambda done, total, what: None)
    return document, summarize(document)


def flags(found: Summary, cell: Cell) -> str:
    return "; ".join(flag for one in found.all if one.cell == cell for flag in one.flags)


def one(found: Summary, cell: Cell, arm: str) -> ArmSummary:
    finding = found.find(cell, arm)
    assert finding is not None
    return finding


def test_a_sound_server_has_no_caveats_about_its_answers() -> None:
    document, found = measured(Fault())
    assert found.failed == 0
    assert not [line for line in caveats(document, found) if "standstill" in line or "failed" in line]


def test_a_stall_of_300_ms_is_a_standstill_in_the_report() -> None:
    # 32 requests get the expected answers and warm up. The stalled request is in a pass.
    _, found = measured(Fault(stall_at_request=60, one_at_a_time=True))
    stalls = [stall for each in found.all for stall in each.stalls]
    assert stalls
    assert max(stall.seconds for stall in stalls) > 0.25


def test_fast_wrong_answers_are_failures_and_no_throughput() -> None:
    _, found = measured(Fault(wrong_beside_others=True))
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


def test_a_refused_fuse_is_a_caveat_and_the_other_arms_are_measured() -> None:
    plan = replace(PLAN, arms="single,fused:1,residual:1", requests=4, repeats=1)
    with faulty(Fault()) as url:
        document = measure(
            plan, Where(url, ("a",), "", Path(), may_fuse=True), lambda done, total, what: None
        )
    (caveat,) = document.caveats
    assert "fused:1, residual:1: the server refused to fuse a@1" in caveat
    assert {one.arm for one in document.passes} == {"base", "single"}
    assert caveat in caveats(document, summarize(document))


async def test_a_timeline_with_a_refused_step_keeps_its_requests(tmp_path: Path) -> None:
    shutil.copytree(EMBEDDED_ADAPTERS / "roll", tmp_path / "roll")
    with faulty(Fault()) as url:
        systems = SystemsUnderTest(
            {"lora-compose": url}, "base", (AdapterVersion(id="roll@1", digest=None, rank=8),), root=tmp_path
        )
        async with open_client(url, 8) as client:
            line, (caveat,) = await timeline(client, systems, 0.5, 20.0, Words(range(5, 50)), seed=0)
    assert caveat.startswith("The timeline ends early. The server refused to register arrives-late")
    assert line.events == []
    assert {row.failure for row in line.rows} == {None}
