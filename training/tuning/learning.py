"""`train weights --per-layer` and `--gated`: load the base, learn, compare, and write what is best."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from lora_compose.adapters.export import ResolvedMember, moved_to
from lora_compose.adapters.peft.checkpoint import open_adapter, write_adapter
from lora_compose.training.evaluation.models import composed
from lora_compose.training.evaluation.tasks import Task
from lora_compose.training.tuning.coefficients import Plan
from lora_compose.training.tuning.comparison import Comparison, compare
from lora_compose.training.tuning.rows import halves


def learned(
    found: Sequence[ResolvedMember],
    task: Task,
    base: str,
    plan: Plan,
    output: Path,
    on_progress: Callable[[str, int, float], None],
) -> tuple[Comparison, dict[str, Any]]:
    """Learn coefficients for the members `found`, and write the best stack to `output`.

    The facts are JSON values. Raises the errors of `halves`, `composed` and `Stacked.of`."""
    parts = halves(task, plan.seed)
    members = [open_adapter(resolved.directory) for resolved in found]
    weights = [resolved.member.weight for resolved in found]
    with composed(base, None, {}, Path()) as loaded:
        comparison = compare(loaded, members, weights, parts, plan, on_progress)
    winner = comparison.winner
    with moved_to(output) as directory:
        write_adapter(winner.stacked.adapter(), directory, base)
    facts = {
        "composition": "+".join(resolved.id for resolved in found),
        "directory": str(output),
        "members": [{"id": one.id, "weight": one.member.weight} for one in found],
        "learned": comparison.to_dict() | {"coefficients": _short(winner.stacked.to_dict())},
    }
    return comparison, facts | _base_facts(base)


MOST_GROUPS = 64
"""A lineage is at most 16 KiB. The coefficients of more groups can be read from the adapter's norms."""


def _short(coefficients: dict[str, list[float]]) -> dict[str, list[float]] | None:
    return coefficients if len(coefficients) <= MOST_GROUPS else None


def _base_facts(base: str) -> dict[str, str]:
    from lora_compose.adapters.admission.fingerprint import fingerprint

    return {"base_fingerprint": fingerprint(Path(base))} if Path(base).is_dir() else {}


def comparison_table(comparison: Comparison) -> Table:
    """The held-out score of each candidate, and its gain over the given weights."""
    table = Table("", "coefficients", "held out", "95 % interval", "gain", box=None, pad_edge=False)
    first = comparison.candidates[0]
    for candidate in comparison.candidates:
        low, high = candidate.held_out.interval
        gain, (worst, best) = candidate.gain_over(first)
        table.add_row(
            f"[b]{candidate.name}[/]" if candidate is comparison.winner else candidate.name,
            str(sum(len(value) for value in candidate.stacked.values.values())),
            f"{candidate.held_out.score:.2f}",
            f"{low:.2f}..{high:.2f}",
            "" if candidate is first else f"{gain:+.2f} ({worst:+.2f}..{best:+.2f})",
        )
    table.caption = (
        f"Mean score of the judge {first.held_out.judge} on {comparison.held_out_rows} held-out rows; "
        f"learned on {comparison.tuned_rows} rows. The bold one is written."
    )
    table.caption_justify = "left"
    return table
