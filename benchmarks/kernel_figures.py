"""What kernel timings mean: rates, shares of the machine's, a table, a heat map; made from JSON only."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.ratios import Spread, spread

HEADERS = (
    "tokens",
    "rank",
    "adapters",
    "µs",
    "95 %",
    "GFLOP/s",
    "GB/s",
    "of roofline",
    "vLLM, µs",
    "vLLM / ours",
)


@dataclass(frozen=True)
class Roofline:
    """The machine's limits, measured in the same run (Williams, Waterman, Patterson 2009)."""

    flops: float
    """A second, of a square product."""
    bytes: float
    """A second, of a sum of vectors larger than any cache."""

    def seconds(self, flops: float, moved: float) -> float:
        """The least this takes when everything comes from memory, once."""
        return max(flops / self.flops, moved / self.bytes)


@dataclass(frozen=True)
class Figure:
    """One cell. `bytes` counts each factor, input and output once."""

    tokens: int
    rank: int
    adapters: int
    ours: Spread
    vllm: Spread | None
    flops: float
    bytes: float
    of_roofline: float
    """Above 1 where the factors stay in a cache."""

    @property
    def speedup(self) -> float | None:
        """vLLM's median over ours."""
        return self.vllm.median / self.ours.median if self.vllm else None


def figures(document: dict[str, Any]) -> tuple[Roofline, list[Figure]]:
    """Of a result of `server.engine.kernel_timing`, with the layer's shape and the seed beside."""
    result, config = document["result"], document["config"]
    times = {
        (row["way"], row.get("tokens"), row.get("rank"), row.get("adapters")): _spread(row, config["seed"])
        for row in result["rows"]
    }
    gemm, stream = times["gemm", None, None, None], times["stream", None, None, None]
    roof = Roofline(result["gemm_flops"] / gemm.median, result["stream_bytes"] / stream.median)
    found = []
    for (way, tokens, rank, adapters), ours in times.items():
        if way == "ours":
            wide = config["hidden"] + config["out"]
            flops = 2.0 * tokens * rank * wide
            moved = 4.0 * (adapters * rank * wide + tokens * (config["hidden"] + 2 * config["out"]))
            share = roof.seconds(flops, moved) / ours.median
            vllm = times.get(("vllm", tokens, rank, adapters))
            found.append(Figure(tokens, rank, adapters, ours, vllm, flops, moved, share))
    return roof, found


def _spread(row: dict[str, Any], seed: int) -> Spread:
    found = spread(row["seconds"], seed)
    assert found is not None
    return found


def cells(one: Figure) -> tuple[str, ...]:
    """One line of the table, under HEADERS."""
    ours, vllm, speedup = one.ours, one.vllm, one.speedup
    return (
        *(str(one.tokens), str(one.rank), str(one.adapters)),
        f"{1e6 * ours.median:.4g}",
        f"{1e6 * ours.low:.4g} to {1e6 * ours.high:.4g}",
        f"{one.flops / ours.median / 1e9:.1f}",
        f"{one.bytes / ours.median / 1e9:.1f}",
        f"{one.of_roofline:.2f}",
        f"{1e6 * vllm.median:.4g}" if vllm else "-",
        f"{speedup:.1f}" if speedup else "-",
    )


def title(document: dict[str, Any], roof: Roofline) -> str:
    """Where it was measured, and the limits there."""
    machine, config, result = document["machine"], document["config"], document["result"]
    shape = f"{config['hidden']} x {config['out']} layer"
    return (
        f"{shape}, float32, {machine['cpu']}, {result['threads']} thread(s), median of {config['repeats']}; "
        f"a product of 1024 x 1024 matrices: {roof.flops / 1e9:.1f} GFLOP/s, a sum of long vectors: "
        f"{roof.bytes / 1e9:.1f} GB/s"
    )


def table(document: dict[str, Any]) -> Table:
    """For a terminal."""
    roof, found = figures(document)
    made = Table(title=title(document, roof), title_justify="left")
    for header in HEADERS:
        made.add_column(header, justify="right")
    for one in found:
        made.add_row(*cells(one))
    return made


def markdown(document: dict[str, Any]) -> str:
    """For a page."""
    roof, found = figures(document)
    lines = [HEADERS, tuple("--:" for _ in HEADERS), *(cells(one) for one in found)]
    return "\n".join([f"{title(document, roof)}.", "", *(f"| {' | '.join(line)} |" for line in lines)]) + "\n"


def heat_map(document: dict[str, Any], path: Path) -> None:
    """Above GFLOP/s of ours, below how much longer vLLM's ops take; a panel for each count of adapters."""
    from matplotlib.figure import Figure as Canvas

    _, found = figures(document)
    counts = sorted({one.adapters for one in found})
    canvas = Canvas(figsize=(3.4 * len(counts), 6.4), layout="constrained")
    axes = canvas.subplots(2, len(counts), squeeze=False)
    for column, count in enumerate(counts):
        panel = [one for one in found if one.adapters == count]
        rates = [one.flops / one.ours.median / 1e9 for one in panel]
        _panel(axes[0][column], panel, rates, f"GFLOP/s, {count} adapter(s)")
        _panel(axes[1][column], panel, [one.speedup or 0 for one in panel], f"vLLM's time / ours, {count}")
    canvas.savefig(path, dpi=110)


def _panel(axis: Any, panel: Sequence[Figure], values: Sequence[float], name: str) -> None:
    ranks, tokens = sorted({one.rank for one in panel}), sorted({one.tokens for one in panel})
    grid = [[float("nan")] * len(ranks) for _ in tokens]
    for one, value in zip(panel, values, strict=True):
        row, column = tokens.index(one.tokens), ranks.index(one.rank)
        grid[row][column] = value
        high = value > 0.6 * max(values)
        axis.text(column, row, f"{value:.3g}", ha="center", va="center", color="black" if high else "white")
    axis.imshow(grid, cmap="viridis", aspect="auto", vmin=0)
    axis.set_xticks(range(len(ranks)), ranks)
    axis.set_yticks(range(len(tokens)), tokens)
    axis.set(title=name, xlabel="rank", ylabel="tokens")
