"""The report of a run for people: a table of scores before and after, and a picture of loss and scores by
step.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.filesize import decimal
from rich.table import Table

from lora_compose.training.evaluation.intervals import with_interval
from lora_compose.training.run_record import FinishedRecord

LOSSES = ("loss", "eval_loss")
SHARES = (
    "eval_domain",
    "eval_general",
    "rewards/accuracies",
    "eval_rewards/accuracies",
    "mean_token_accuracy",
    "eval_mean_token_accuracy",
)
MARGINS = ("rewards/margins", "eval_rewards/margins", "logps/chosen", "eval_logps/chosen", "kl")


def draw_curves(record: FinishedRecord, file: Path) -> None:
    """Up to three panels: losses, values between 0 and 1, and the margins of DPO and KTO.

    A panel without points is left out.
    """
    from matplotlib.figure import Figure

    panels = [
        (title, {name: _points(record.history, name) for name in names})
        for title, names in (("loss", LOSSES), ("share", SHARES), ("preference, in nats", MARGINS))
    ]
    shown = [(title, {n: p for n, p in lines.items() if p}) for title, lines in panels if any(lines.values())]
    if not shown:
        return
    figure = Figure(figsize=(4.5 * len(shown), 3.4), layout="constrained")
    for axes, (title, lines) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        for name, points in lines.items():
            axes.plot(
                *zip(*points, strict=True),
                label=name,
                marker="o" if name.startswith("eval") else None,
                markersize=3,
            )
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.suptitle(f"{record.method} of {Path(record.base).name}", fontsize=10)
    figure.savefig(file, dpi=120)


def _points(history: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    return [(entry["step"], float(entry[name])) for entry in history if name in entry]


def run_table(record: FinishedRecord) -> Table:
    """Scores of the base, of the adapter at the start, and of the result; then loss and costs.

    The result has its 95 % intervals, and the change since the start its paired ones.
    """
    columns = {"base": record.base_scores, "start": record.start_scores, "trained": record.scores}
    shown = {name: scores for name, scores in columns.items() if scores}
    table = Table("", *shown, *(["change"] if record.changes else []), box=None, pad_edge=False)
    intervals = {"base": record.base_intervals, "trained": record.intervals}
    for name in dict.fromkeys(name for scores in shown.values() for name in scores):
        cells = [
            with_interval(scores[name], intervals.get(column, {}).get(name)) if name in scores else ""
            for column, scores in shown.items()
        ]
        if name in record.changes:
            cells.append(with_interval(*record.changes[name]))
        table.add_row(name, *cells)
    last = {name: entry[name] for entry in record.history for name in ("loss", "eval_loss") if name in entry}
    for name, value in last.items():
        table.add_row(f"last {name}", *[""] * max(len(shown) - 1, 0), f"{value:.4f}")
    memory = decimal(record.peak_memory_bytes)
    table.caption = f"{record.steps} steps, {record.seconds:.0f} s, peak memory {memory}"
    return table
