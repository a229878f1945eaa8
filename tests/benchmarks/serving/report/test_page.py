"""The report's page."""

import re
from dataclasses import replace

import pytest

from lora_compose.benchmarks.serving.report.leading import chart
from lora_compose.benchmarks.serving.report.page import page
from lora_compose.benchmarks.serving.results.advice import Advice, advise
from lora_compose.benchmarks.serving.results.document import (
    BenchmarkResult,
    Event,
    FirstUse,
    Sample,
    Timeline,
)
from lora_compose.benchmarks.serving.results.plan import Cell
from lora_compose.benchmarks.serving.results.summary import summarize
from tests.benchmarks.serving.made_results import CELL, result

COSTS = {"base": 0.100, "stack:2": 0.120, "fused:2": 0.100}


def made(document: BenchmarkResult) -> str:
    advice = Advice("stack", "Stack.\nIt costs little.")
    return page(document, summarize(document), advice, ["A <crossover>.", "It costs little."])


def with_everything() -> BenchmarkResult:
    document = result(COSTS)
    heat = [
        one.model_copy(update={"cell": document.plan.heat_cell, "arm": name})
        for one, name in zip(
            [one for one in document.passes if one.arm != "fused:2"],
            ["base", "stack:2@r16"] * 5,
            strict=True,
        )
    ]
    document.plan = replace(document.plan, rates=(1.0, 2.5))
    opened = [
        one.model_copy(update={"cell": Cell("open", rate=rate)})
        for one in document.passes
        for rate in document.plan.rates
    ]
    document.passes += heat + opened
    document.timeline = Timeline(
        seconds=20.0,
        rate=2.0,
        rows=document.passes[0].rows,
        events=[Event(t=0.01, seconds=0.02, what="fuse a+b")],
        samples=[Sample(t=0.0, counters={"lora_compose_fused": 0.0})],
    )
    return document


def test_the_page_has_a_sentence_a_chart_and_the_advice_before_every_arm_and_figure() -> None:
    text = made(with_everything())
    lead, chart, advice = (text.index(part) for part in ("<h1", 'class="keeps"', 'class="advice"'))
    assert lead < chart < advice
    assert "A stack of 2 adapters keeps 8" in text[lead:chart]
    assert all(f"<td>{arm}</td>" in text for arm in COSTS)
    assert text.index("It costs little.") < text.index("<table>")
    assert text.count("<svg") == 5


def test_the_leading_chart_has_a_bar_for_each_way_and_names_other_servers() -> None:
    document = result(COSTS | {"vllm:2": 0.4, "peft:1": 0.5})
    found = chart(summarize(document))
    assert found is not None
    assert [(bar.words, bar.kind) for bar in found.bars] == [
        ("base, no adapter", "base"),
        ("stack of 2 adapters", "ours"),
        ("2 adapters fused into the base", "ours"),
        ("stock vLLM, sum of 2 adapters", "other"),
        ("transformers + PEFT, one adapter", "other"),
    ]
    shares = [bar.width / found.full for bar in found.bars]
    assert shares == pytest.approx([1, 5 / 6, 1, 1 / 4, 1 / 5], abs=0.05)
    assert "the best of the other servers, stock vLLM, sum of 2 adapters, reaches 2" in made(document)


def test_a_server_that_is_faster_than_the_base_has_its_whole_bar() -> None:
    found = chart(summarize(result(COSTS | {"vllm:1": 0.02})))
    assert found is not None
    assert found.bars[-1].width / found.full == pytest.approx(5, abs=0.3)


def test_a_wild_interval_ends_at_the_edge_of_the_chart() -> None:
    found = chart(summarize(result(COSTS, noise=3.0)))
    assert found is not None
    assert all(0 <= place <= 100 for bar in found.bars for place in (bar.width, bar.low, bar.high))


def test_a_noisy_result_leads_with_the_reason_and_has_no_verdict() -> None:
    document = result(COSTS)
    document.others_busy = [0.6] * 5
    summary = summarize(document)
    text = page(document, summary, advise(document, summary), [])
    heading = text[text.index("<h1") : text.index("</h1>")]
    assert "no verdict" in heading
    assert "Other programs used 60 % of the processors" in text
    assert "What to do" in text
    assert "Recommended" not in text


def test_tables_are_folded_and_say_what_their_columns_are() -> None:
    text = made(with_everything())
    for table in text.split("<table>")[:-1]:
        assert "<details>" in table.rpartition("<summary>")[0][-12:]
    assert "<dt>TTFT</dt><dd>time to the first token</dd>" in text


def test_a_sentence_of_the_advice_is_not_said_twice() -> None:
    assert made(result(COSTS)).count("It costs little.") == 1


def test_the_page_loads_nothing_from_the_network() -> None:
    text = re.sub(
        r'xmlns(:\w+)?="[^"]*"|<metadata>.*?</metadata>', "", made(with_everything()), flags=re.DOTALL
    )
    assert not re.search(r'(src|href|url\()=?"?(https?:)?//', text)
    assert "<script" not in text


def test_the_same_result_gives_the_same_page() -> None:
    assert made(with_everything()) == made(with_everything())


def test_no_id_is_used_twice_on_the_page() -> None:
    ids = re.findall(r' id="([^"]+)"', made(with_everything()))
    assert len(ids) == len(set(ids))


def test_names_are_text_and_never_markup() -> None:
    document = result(COSTS)
    document.base = "<script>alert(1)</script>"
    document.cold = [FirstUse(arm="x", model="<img src=x>", first_use_ttft=1.0, warm_ttft=1.0)]
    text = made(document)
    assert "<script" not in text
    assert "<img" not in text
    assert "&lt;crossover&gt;" in text


@pytest.mark.parametrize("arms", [{"base": 0.1}, {"base": 0.1, "single": 0.1}])
def test_a_small_result_gives_a_page_too(arms: dict[str, float]) -> None:
    document = result(arms)
    document.cold, document.switches, document.differences = [], [], []
    assert CELL.id in made(document)


def test_the_page_says_that_every_request_failed() -> None:
    document = result(COSTS)
    for one in document.passes:
        for row in one.rows:
            row.failure, row.times = "http_500", []
    text = made(document)
    assert "300 of 300 requests failed" in text
