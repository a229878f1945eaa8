"""Draws the pictures of the documentation that are not screenshots.

python -m tests.docs.pictures
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lora_compose.benchmarks.serving.results.crossovers import busiest_cell
from lora_compose.benchmarks.serving.results.document import BenchmarkResult, read_result
from lora_compose.benchmarks.serving.results.summary import BASE, summarize
from tests.docs.blocks import ROOT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IMAGES: Final = ROOT / "docs" / "images"
RESULTS: Final = ("embedded", "311M")
MODELS: Final = {"embedded": "0.8 million parameters", "311M": "311 million parameters"}
WAYS: Final = {
    "single": "one adapter",
    "stack": "{} adapters, stacked",
    "merge": "{} adapters, merged",
    "fused": "{} adapters, fused",
    "residual": "the model alone while {} are fused",
    "vllm": "vLLM alone, {} added into one file",
    "peft": "transformers + PEFT, {} added into one",
    "vllm:1": "vLLM alone, one adapter",
    "peft:1": "transformers + PEFT, one adapter",
}
OURS, OTHERS, FROZEN, TRAINED, INK = "#2f6fb5", "#b0762a", "#d5dbe3", "#e08a3c", "#1c2733"
LABEL: Final = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}


@dataclass(frozen=True)
class Bar:
    """One way to serve: its share of the base's speed, with the ends of its 95 % interval."""

    label: str
    median: float
    low: float
    high: float
    is_ours: bool


def bars(document: BenchmarkResult) -> list[Bar]:
    """The ways that were measured in the busiest closed loop, ours before the others."""
    summary = summarize(document)
    cell = busiest_cell(summary)
    assert cell is not None
    found = []
    for arm in summary.arms:
        entry = summary.find(cell, arm)
        kind, _, count = arm.partition(":")
        if arm == BASE or kind not in WAYS or "@" in arm or entry is None:
            continue
        if (ratio := entry.ratios.get("output_throughput")) is not None:
            label = WAYS.get(arm, WAYS[kind]).format(count)
            found.append(Bar(label, ratio.median, ratio.low, ratio.high, kind not in ("vllm", "peft")))
    return sorted(found, key=lambda bar: not bar.is_ours)


def kept_speed() -> "Figure":
    """The share of the base's tokens a second that each way keeps, one panel for each model."""
    figure = _figure(10.0, 3.9)
    panels = figure.subplots(1, len(RESULTS), sharex=True)
    for panel, name in zip(panels, RESULTS, strict=True):
        found = bars(read_result(ROOT / "benchmarks" / "results" / f"{name}.json"))[::-1]
        places = range(len(found))
        for place, bar in zip(places, found, strict=True):
            panel.barh(place, bar.median, color=OURS if bar.is_ours else OTHERS, height=0.62)
            panel.plot([bar.low, bar.high], [place, place], color=INK, linewidth=1.2)
            end = max(bar.high, bar.median) + 0.03
            panel.text(end, place, f"{bar.median:.0%}", va="center", fontsize=9, bbox=LABEL)
        panel.axvline(1.0, color=INK, linewidth=0.8, linestyle=":")
        panel.set_yticks(list(places), [bar.label for bar in found], fontsize=9)
        panel.set_xlim(0, 1.5)
        panel.set_xticks([0, 0.5, 1.0], ["0 %", "50 %", "100 %"])
        panel.set_title(f"model with {MODELS[name]}", fontsize=10, loc="left", x=-0.1)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    figure.supxlabel(
        "speed kept, of the model without adapters = 100 % (tokens a second, higher is better)", fontsize=9
    )
    return figure


def fine_tuning() -> "Figure":
    """Full fine-tuning, LoRA and QLoRA: which numbers are trained, and how the frozen ones are stored."""
    figure = _figure(10.0, 3.4)
    panels = figure.subplots(1, 3)
    for panel in panels:
        panel.set_xlim(0, 10)
        panel.set_ylim(0, 8.2)
        panel.set_aspect("equal")
        panel.axis("off")
    _matrix(panels[0], (2.5, 2.6), (5.0, 4.0), TRAINED, "W\nall weights\n16 or 32 bits")
    panels[0].set_title("Full fine-tuning", fontsize=12, color=INK)
    panels[0].text(
        5,
        0.2,
        "trains every number;\nthe result is a whole model",
        ha="center",
        va="bottom",
        fontsize=9,
        color=INK,
    )
    _adapted(
        panels[1], "W\nfrozen\n16 or 32 bits", "LoRA", "trains A and B only;\nthe result is a small file"
    )
    _adapted(
        panels[2],
        "W\nfrozen\n4 bits (NF4)",
        "QLoRA",
        "as LoRA, beside compressed weights:\na quarter of their memory",
        cells=True,
    )
    figure.legend(
        handles=[_patch(TRAINED, "trained"), _patch(FROZEN, "frozen")],
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=9,
    )
    return figure


def _adapted(panel: "Axes", frozen: str, title: str, note: str, *, cells: bool = False) -> None:
    _matrix(panel, (0.3, 2.6), (4.6, 4.0), FROZEN, frozen, cells=cells)
    _matrix(panel, (6.0, 5.3), (3.4, 1.0), TRAINED, "A   (r rows)")
    _matrix(panel, (7.1, 2.4), (1.2, 2.4), TRAINED, "B\n(r columns)", side=True)
    panel.text(5.45, 4.6, "+", ha="center", va="center", fontsize=16, color=INK)
    panel.annotate("", (7.7, 4.85), (7.7, 5.25), arrowprops={"arrowstyle": "->", "color": INK})
    panel.text(5, 0.2, note, ha="center", va="bottom", fontsize=9, color=INK)
    panel.text(5, 7.6, "y = W x + scaling · B (A x)", ha="center", fontsize=9.5, color=INK, style="italic")
    panel.set_title(title, fontsize=12, color=INK)


def _matrix(
    panel: "Axes",
    at: tuple[float, float],
    size: tuple[float, float],
    color: str,
    text: str,
    *,
    cells: bool = False,
    side: bool = False,
) -> None:
    from matplotlib.patches import Rectangle

    panel.add_patch(Rectangle(at, *size, facecolor=color, edgecolor=INK, linewidth=1.0))
    if cells:
        for step in range(1, 8):
            place = at[0] + size[0] * step / 8
            panel.plot([place, place], [at[1], at[1] + size[1]], color="white", linewidth=0.8)
    middle = (at[0] + size[0] / 2, at[1] + size[1] / 2)
    if side:
        panel.text(at[0] + size[0] + 0.2, middle[1], text, va="center", fontsize=8.5, color=INK)
    else:
        box = LABEL | {"facecolor": color}
        panel.text(*middle, text, ha="center", va="center", fontsize=9, color=INK, bbox=box)


def _patch(color: str, label: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(facecolor=color, edgecolor=INK, label=label)


def _figure(width: float, height: float) -> "Figure":
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.fonttype"] = "none"
    mpl.rcParams["svg.hashsalt"] = "lora-compose"
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def write(figure: "Figure", name: str, place: Path = IMAGES) -> None:
    """Write NAME.svg and NAME.png: the same figure always gives the same bytes of SVG."""
    figure.savefig(place / f"{name}.svg", metadata={"Date": None})
    figure.savefig(place / f"{name}.png", dpi=150)


PICTURES: Final = {"kept-speed": kept_speed, "lora-finetuning-diagram": fine_tuning}


def main() -> None:
    """Draw all pictures into docs/images."""
    for name, draw in PICTURES.items():
        write(draw(), name)


if __name__ == "__main__":
    main()
