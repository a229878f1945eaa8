"""What was found in data and done to it, for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from training.data.curation import Curated
from training.data.mixing import Achieved

SHOWN = 60
"""Characters of an example."""


def outcome_table(curated: Curated) -> Table:
    """One line a step, with an example and its facts."""
    table = Table("step", "rows touched", "dropped", "such as", box=None, pad_edge=False)
    for outcome in curated.outcomes:
        example = " ".join(outcome.examples[0].split())[:SHOWN] if outcome.examples else ""
        facts = ", ".join(f"{name} {_plain(value)}" for name, value in outcome.facts.items())
        table.add_row(outcome.step, str(outcome.touched), str(outcome.dropped), escape(example))
        if facts:
            table.add_row("", "", "", f"[dim]{escape(facts)}[/]")
        if outcome.facts.get("fires") and not outcome.dropped:
            table.add_row("", "", "", f"[yellow]{LENGTH_ADVICE}[/]")
    return table


LENGTH_ADVICE = (
    "length tells which answer was chosen: --balance-length, or TRL's loss_type sigmoid_norm or ld_alpha < 1"
)


def facts_table(facts: Mapping[str, Any]) -> Table:
    """One line a fact."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in facts.items():
        table.add_row(name, escape(_plain(value)))
    return table


def mix_table(achieved: Sequence[Achieved]) -> Table:
    """What each source really has of the mix."""
    table = Table("source", "kind", "examples", "tokens", "share", box=None, pad_edge=False)
    for each in achieved:
        tokens = "" if each.tokens is None else f"{each.tokens:,}"
        table.add_row(escape(each.source), each.kind, f"{each.examples:,}", tokens, f"{each.share:.3f}")
    return table


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(inner)}" for name, inner in value.items()) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
