"""Figures of a result, as SVG that uses the colours of the page around it."""

import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lora_compose.benchmarks.serving.report.words import arm_words
from lora_compose.benchmarks.serving.results.document import BenchmarkResult, RequestRow, Timeline
from lora_compose.benchmarks.serving.results.metrics import e2el, itl, ttft
from lora_compose.benchmarks.serving.results.plan import Cell
from lora_compose.benchmarks.serving.results.summary import Summary
from lora_compose.benchmarks.statistics import Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

INK, FAINT = "#010203", "#040506"
"""Placeholders. In the SVG they are replaced by the page's text colour and line colour."""
# The colours of Okabe and Ito, without black and yellow. Colour-blind people can distinguish them.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#7F7F7F")
MARKERS = "osD^vP*X<>"
RATIO_TICKS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.4, 2, 3, 5, 10, 20)
HEAT = re.compile(r"stack:(\d+)@r(\d+)")
MS = 1000


def svg(name: str, size: tuple[float, float], draw: Callable[["Figure"], None]) -> str:
    """The figure that `draw` fills, as SVG. The same input always gives the same text."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style = {"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 10, "font.family": "sans-serif"}
    inks = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor")
    with mpl.rc_context({**style, **dict.fromkeys(inks, INK), "grid.color": FAINT}):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor").replace(FAINT, "var(--line)")
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    # A page has several figures, so each one gets its own prefix for ids.
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)


def style_of(arms: Sequence[str], arm: str) -> dict[str, Any]:
    """An arm's colour, marker and label. They are the same in every figure."""
    place = list(arms).index(arm)
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": MARKERS[place % len(MARKERS)],
        "label": arm_words(arm),
    }


def _in_decades(axis: "Axis") -> None:
    """A logarithmic axis with plain numbers at 1, 2 and 5 of each decade."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _legend(figure: "Figure", axes: "Axes") -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)


def latency_over_rate(summary: Summary, arms: Sequence[str]) -> str:
    """Median latencies at every rate of the open loops."""
    rates = sorted({cell.rate for cell in summary.cells if cell.rate is not None})

    def draw(figure: "Figure") -> None:
        axes = figure.subplots(1, 2)
        for column, (metric, title) in enumerate((("ttft", "first token"), ("e2el", "whole answer"))):
            for arm in arms:
                points = [
                    (entry.cell.rate, MS * entry.metrics[metric].median)
                    for entry in summary.all
                    if entry.arm == arm and entry.cell.rate is not None and metric in entry.metrics
                ]
                axes[column].plot(*zip(*sorted(points), strict=True), **style_of(arms, arm))
            axes[column].set(title=f"{title}, median", xlabel="requests a second", ylabel="ms", yscale="log")
            axes[column].set_xticks(rates, [f"{rate:g}" for rate in rates])
            _in_decades(axes[column].yaxis)
            axes[column].grid(True, which="both", linewidth=0.4)
        _legend(figure, axes[0])

    return svg("rate", (9, 4.6), draw)


def distributions(document: BenchmarkResult, cell: Cell, arms: Sequence[str]) -> str:
    """Cumulative distributions of the time to first token and of the gaps between tokens."""
    of: tuple[tuple[str, Callable[[RequestRow], list[float]]], ...] = (
        ("first token (TTFT)", lambda row: [ttft(row)]),
        ("between tokens (ITL)", itl),
    )

    def draw(figure: "Figure") -> None:
        axes = figure.subplots(1, 2, sharey=True)
        for column, (title, values_of) in enumerate(of):
            for arm in arms:
                rows = _good_rows(document, cell, arm)
                values = sorted(max(1e-5, value) for row in rows for value in values_of(row))
                shares = [(place + 1) / len(values) for place in range(len(values))]
                style = style_of(arms, arm) | {"marker": ""}
                is_repeated = list(arms).index(arm) >= len(COLOURS)
                line = "--" if is_repeated else "-"
                axes[column].plot([MS * value for value in values], shares, line, **style)
            axes[column].set(title=title, xlabel="ms", xscale="log")
            axes[column].xaxis.set_major_formatter("{x:g}")
            axes[column].grid(True, which="both", linewidth=0.4)
        axes[0].set_ylabel("share of samples")
        _legend(figure, axes[0])

    return svg("distributions", (9, 4.6), draw)


def _good_rows(document: BenchmarkResult, cell: Cell, arm: str) -> list[RequestRow]:
    passes = [run for run in document.passes if (run.cell, run.arm) == (cell, arm)]
    return [row for run in passes for row in run.rows if row.failure is None and row.times]


def ratio_intervals(summary: Summary, cell: Cell, arms: Sequence[str]) -> str:
    """The ratios of each arm to the base, with 95 % intervals."""
    shown = [arm for arm in reversed(arms) if (entry := summary.find(cell, arm)) is not None and entry.ratios]

    def draw(figure: "Figure") -> None:
        axes = figure.subplots(1, 2, sharey=True)
        for column, (metric, title) in enumerate((
            ("output_throughput", "tokens/s (more is better)"),
            ("tpot", "time per token (less is better)"),
        )):
            for place, arm in enumerate(shown):
                entry = summary.find(cell, arm)
                if entry is not None and metric in entry.ratios:
                    _interval(axes[column], entry.ratios[metric], place, style_of(arms, arm))
            axes[column].axvline(1, linewidth=1, color=INK)
            axes[column].set(title=title, xlabel="ratio to the base", xscale="log")
            axes[column].grid(True, axis="x", which="both", linewidth=0.4)
            low, high = axes[column].get_xlim()
            ticks = [tick for tick in RATIO_TICKS if low <= tick <= high]
            axes[column].set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes[column].set_xticks([], minor=True)
        axes[0].set_yticks(range(len(shown)), [arm_words(arm) for arm in shown])

    return svg("ratios", (9, 0.8 + 0.34 * max(3, len(shown))), draw)


def _interval(axes: "Axes", ratio: Spread, place: int, style: dict[str, Any]) -> None:
    axes.plot([ratio.low, ratio.high], [place, place], color=style["color"], linewidth=2)
    axes.plot([ratio.median], [place], **style)


def heat_map(summary: Summary) -> str | None:
    """Throughput of stacks of generated adapters relative to the base. None if none was measured."""
    known = {
        (int(match[1]), int(match[2])): entry.ratios["output_throughput"].median
        for entry in summary.all
        if (match := HEAT.fullmatch(entry.arm)) and "output_throughput" in entry.ratios
    }
    if not known:
        return None
    members, ranks = (sorted({key[place] for key in known}) for place in (0, 1))

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        values = [[known.get((k, rank), float("nan")) for k in members] for rank in ranks]
        image = axes.imshow(values, cmap="cividis", vmin=0, vmax=1, aspect="auto", origin="lower")
        for row, rank in enumerate(ranks):
            for column, k in enumerate(members):
                value = known.get((k, rank))
                if value is not None:
                    colour = "white" if value < 0.6 else "black"
                    axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour)
        axes.set_xticks(range(len(members)), map(str, members))
        axes.set_yticks(range(len(ranks)), map(str, ranks))
        axes.set(xlabel="adapters in the stack", ylabel="rank of each", title="tokens/s relative to the base")
        figure.colorbar(image)

    return svg("heat", (6, 1.6 + 0.5 * len(ranks)), draw)


def timeline(line: Timeline) -> str:
    """Latency of every request over time, with the operations and the counters of the server."""
    rows = [row for row in line.rows if row.failure is None and row.times]

    def draw(figure: "Figure") -> None:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        for label, of, colour in (("whole answer", e2el, COLOURS[0]), ("first token", ttft, COLOURS[3])):
            top.plot(
                [row.due for row in rows], [MS * of(row) for row in rows], ".", color=colour, label=label
            )
        for number, event in enumerate(line.events):
            for axes in (top, bottom):
                axes.axvspan(event.t, event.t + event.seconds, color=COLOURS[4], alpha=0.35)
            words = f"{number + 1}"
            top.annotate(words, (event.t, 1), xycoords=("data", "axes fraction"), va="bottom", ha="center")
        top.set(ylabel="ms", yscale="log")
        _in_decades(top.yaxis)
        top.grid(True, which="both", linewidth=0.4)
        for name, label, colour in (
            ("lora_compose_prepare_duration_seconds_count", "adapters prepared", COLOURS[2]),
            ("lora_compose_fused", "fused", COLOURS[1]),
        ):
            times = [sample.t for sample in line.samples if name in sample.counters]
            values = [sample.counters[name] for sample in line.samples if name in sample.counters]
            start = values[0] if values and name.endswith("_count") else 0
            bottom.step(times, [v - start for v in values], where="post", color=colour, label=label)
        bottom.set(xlabel="seconds", ylabel="count")
        handles = [*top.get_legend_handles_labels()[0], *bottom.get_legend_handles_labels()[0]]
        figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)

    return svg("timeline", (9, 4.6), draw)
