"""The tables of the report's page, each with a sentence about it and its units."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lora_compose.benchmarks.serving.report import llamacpp_table
from lora_compose.benchmarks.serving.report.tables import ms, ratio
from lora_compose.benchmarks.serving.report.words import TERMS, load_words
from lora_compose.benchmarks.serving.results.beside import beside_llamacpp
from lora_compose.benchmarks.serving.results.document import BenchmarkResult
from lora_compose.benchmarks.serving.results.metrics import MetricStats
from lora_compose.benchmarks.serving.results.plan import Cell
from lora_compose.benchmarks.serving.results.summary import ArmSummary, Summary

HEADERS = (
    *("arm", "requests", "TTFT ms", "TPOT ms", "ITL ms", "E2EL ms", "E2EL p90 ms", "E2EL p99 ms"),
    *("tokens/s", "requests/s", "goodput/s", "tokens/s vs base (95 %)", "TPOT vs base (95 %)", "failed"),
)


@dataclass(frozen=True)
class PageRow:
    """One line of a table. It is highlighted if `failed`."""

    values: Sequence[str]
    failed: bool = False


@dataclass(frozen=True)
class PageTable:
    """A titled table. `about` says what it shows; `terms` explains its columns."""

    title: str
    headers: Sequence[str]
    rows: Sequence[PageRow]
    about: str
    terms: Sequence[tuple[str, str]] = ()


def page_tables(document: BenchmarkResult, summary: Summary) -> Iterator[PageTable]:
    """A table for each load, and those of first uses, switches, memory and differences that are not empty."""
    for cell in summary.cells:
        yield _every_way(document, summary, cell)
    for make in (_beside_llamacpp, _first_uses, _switches, _memory, _differences):
        table = make(document)
        if table.rows:
            yield table


def _beside_llamacpp(document: BenchmarkResult) -> PageTable:
    rows = [PageRow(llamacpp_table.beside_cells(row)) for row in beside_llamacpp(document)]
    about = "Our server and llama.cpp's had the same weights, adapters and requests."
    return PageTable(llamacpp_table.TITLE, llamacpp_table.HEADERS, rows, about)


def _every_way(document: BenchmarkResult, summary: Summary, cell: Cell) -> PageTable:
    plan = document.plan
    rows = [PageRow(_values(arm), arm.failed > 0) for arm in summary.all if arm.cell == cell]
    about = (
        f"{load_words(cell)} The figures are medians over {plan.repeats} repeats. Prompts have "
        f"{plan.prompt_tokens} tokens, answers {plan.output_tokens}."
    )
    goodput = ("goodput", f"requests a second that met all of {', '.join(plan.goodput)} (ms)")
    return PageTable(f"Every way: {cell.id}", HEADERS, rows, about, [*TERMS, goodput])


def _values(arm: ArmSummary) -> list[str]:
    def median(metric: str) -> str:
        return ms(arm.metrics[metric].median) if metric in arm.metrics else "-"

    whole: MetricStats | None = arm.metrics.get("e2el")
    tails = (None, None) if whole is None else (whole.p90, whole.p99)
    rates = [arm.output_throughput, arm.request_throughput, arm.goodput]
    return [
        arm.arm,
        str(arm.requests),
        *(median(metric) for metric in ("ttft", "tpot", "itl", "e2el")),
        *(ms(tail) for tail in tails),
        *("-" if rate is None else f"{rate.median:,.{0 if rate.median >= 100 else 1}f}" for rate in rates),
        ratio(arm.ratios.get("output_throughput")) or "-",
        ratio(arm.ratios.get("tpot")) or "-",
        str(arm.failed),
    ]


def _first_uses(document: BenchmarkResult) -> PageTable:
    return PageTable(
        "First and second use",
        ("arm", "model", "first use ms", "second use ms"),
        [PageRow([use.arm, use.model, ms(use.first_use_ttft), ms(use.warm_ttft)]) for use in document.cold],
        "Time to the first token of one request that was sent twice. The first includes one-time costs, such "
        "as building a merge.",
    )


def _switches(document: BenchmarkResult) -> PageTable:
    return PageTable(
        "Switches of the base weights",
        ("switch", "model", "ms"),
        [PageRow([one.what, one.model or "", ms(one.seconds)]) for one in document.switches],
        "Fusing adds a composition to the base's weights; restoring takes it out.",
    )


def _memory(document: BenchmarkResult) -> PageTable:
    return PageTable(
        "In host memory",
        ("adapter or composition", "MB", "prepared in ms"),
        [PageRow([one.id, f"{one.bytes / 1e6:,.2f}", ms(one.prepare_seconds)]) for one in document.memory],
        "What the engine held at the end of the run. Preparing happens once.",
    )


def _differences(document: BenchmarkResult) -> PageTable:
    rows = [
        (one.arm, one.model, f"{100 * one.same_answers:.0f} %", one.mean_abs_logprob, one.max_abs_logprob)
        for one in document.differences
    ]
    return PageTable(
        "Difference from the exact stack",
        ("arm", "model", "same answers", "mean error, nats", "largest error, nats"),
        [PageRow([*texts, f"{mean:.2g}", f"{largest:.2g}"]) for *texts, mean, largest in rows],
        "Share of the prompts with the same greedy answer, and the error of a token's log-probability. An "
        "error of 0.7 nats means twice as likely, or half as likely.",
    )
