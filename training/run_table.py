"""A run for people: what it scores, before and after, and what it took."""

from rich.filesize import decimal
from rich.table import Table

from training.run_record import FinishedRecord


def run_table(record: FinishedRecord) -> Table:
    """Scores of the base, of what training started from, and of the result; then the run's facts."""
    columns = {"base": record.base_scores, "start": record.start_scores, "trained": record.scores}
    shown = {name: scores for name, scores in columns.items() if scores}
    table = Table("", *shown, box=None, pad_edge=False)
    for name in ("domain", "general", "forgetting"):
        if any(name in scores for scores in shown.values()):
            table.add_row(
                name, *(f"{scores[name]:.3f}" if name in scores else "" for scores in shown.values())
            )
    last = {name: entry[name] for entry in record.history for name in ("loss", "eval_loss") if name in entry}
    for name, value in last.items():
        table.add_row(f"last {name}", *[""] * max(len(shown) - 1, 0), f"{value:.4f}")
    memory = decimal(record.peak_memory_bytes)
    table.caption = f"{record.steps} steps, {record.seconds:.0f} s, peak memory {memory}"
    return table
