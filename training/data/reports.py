"""Facts about a data source, and tables for the terminal: facts, curation steps, and the shares of a mix."""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import quantiles
from typing import Any

from rich.markup import escape
from rich.table import Table

from lora_compose.training.data.curation import Curated
from lora_compose.training.data.labels import count_labels
from lora_compose.training.data.layouts import LABEL
from lora_compose.training.data.messages import Row
from lora_compose.training.data.mixing import ActualShare
from lora_compose.training.data.near_duplicates import find_copies
from lora_compose.training.data.outliers import languages
from lora_compose.training.data.pii import find
from lora_compose.training.data.preference_checks import length_bias
from lora_compose.training.data.rows import Rows, answers, group_of, prompt_text, spoken_text, whole_text

SHOWN = 60
"""Characters of an example that are shown."""


def result_table(curated: Curated) -> Table:
    """One row for each step, with an example and its facts."""
    table = Table("step", "rows found", "dropped", "example", box=None, pad_edge=False)
    for result in curated.results:
        example = " ".join(result.examples[0].split())[:SHOWN] if result.examples else ""
        facts = ", ".join(f"{name} {_plain(value)}" for name, value in result.facts.items())
        table.add_row(result.step, str(result.touched), str(result.dropped), escape(example))
        if facts:
            table.add_row("", "", "", f"[dim]{escape(facts)}[/]")
        if result.facts.get("fires") and not result.dropped:
            table.add_row("", "", "", f"[yellow]{LENGTH_ADVICE}[/]")
    return table


LENGTH_ADVICE = (
    "The length of an answer predicts whether it was chosen. Use --balance-length, or train with TRL's "
    "loss_type sigmoid_norm or ld_alpha < 1."
)


def facts_table(facts: Mapping[str, Any]) -> Table:
    """One row for each fact."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in facts.items():
        table.add_row(name, escape(_plain(value)))
    return table


def mix_table(achieved: Sequence[ActualShare]) -> Table:
    """The actual share of each source in the mix."""
    table = Table("source", "kind", "examples", "tokens", "share", box=None, pad_edge=False)
    for part in achieved:
        tokens = "" if part.tokens is None else f"{part.tokens:,}"
        table.add_row(escape(part.source), part.kind, f"{part.examples:,}", tokens, f"{part.share:.3f}")
    return table


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(inner)}" for name, inner in value.items()) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def inspect(rows: Rows) -> dict[str, Any]:
    """The facts of a data source by name."""
    content = list(rows.dataset)
    texts = [whole_text(row) for row in content]
    facts: dict[str, Any] = {
        "source": rows.source,
        "form": rows.form,
        "rows": len(content),
        "rows left out": list(rows.dropped),
        "notes": list(rows.notes),
        "digest": rows.digest,
        "columns left out": rows.left_out,
        "characters asked": _spread([len(prompt_text(row)) for row in content]),
        "characters answered": _spread([len(answer) for row in content for answer in answers(row)]),
        **_copies(content),
        "personal data": dict(Counter(match.kind for text in texts for match in find(text))),
        "languages": dict(Counter(languages(content)).most_common(5)),
        "sample": texts[0],
    }
    if rows.form == "unpaired":
        facts["good answers"], facts["bad answers"] = count_labels(rows.dataset[LABEL])
    if rows.form == "preference":
        bias = length_bias(content)
        facts["right by length alone"] = round(bias.accuracy, 3)
        facts["length bias"] = "yes: curate with --balance-length" if bias.fires else "no"
    return facts


def _spread(lengths: list[int]) -> dict[str, float]:
    if len(lengths) < 2:
        return {"only": lengths[0]}
    cuts = quantiles(lengths, n=100, method="inclusive")
    return {"least": min(lengths), "half": cuts[49], "99 %": cuts[98], "most": max(lengths)}


def _copies(rows: Sequence[Row]) -> dict[str, int]:
    copies = find_copies([(spoken_text(row), group_of(row)) for row in rows])
    return {"exact duplicates": len(copies.exact), "near duplicates": len(copies.near)}
