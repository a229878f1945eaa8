"""What was found in data and done to it, for people.

What is in a data source, without changing anything.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import quantiles
from typing import Any

from rich.markup import escape
from rich.table import Table

from lora_compose.training.data.curation import Curated
from lora_compose.training.data.mixing import Achieved
from lora_compose.training.data.near_duplicates import Seen
from lora_compose.training.data.outliers import languages
from lora_compose.training.data.pii import find
from lora_compose.training.data.preference_checks import length_bias
from lora_compose.training.data.rows import Rows, answers, asked_text, whole_text

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


def inspect(rows: Rows) -> dict[str, Any]:
    """Facts by name."""
    own = list(rows.dataset)
    texts = [whole_text(row) for row in own]
    facts: dict[str, Any] = {
        "source": rows.source,
        "form": rows.form,
        "rows": len(own),
        "digest": rows.digest,
        "columns left out": rows.left_out,
        "characters asked": _spread([len(asked_text(row)) for row in own]),
        "characters answered": _spread([len(answer) for row in own for answer in answers(row)]),
        **_copies(texts),
        "personal data": dict(Counter(each.kind for text in texts for each in find(text))),
        "languages": dict(Counter(languages(own)).most_common(5)),
        "sample": texts[0],
    }
    if rows.form == "preference":
        bias = length_bias(own)
        facts["right by length alone"] = round(bias.accuracy, 3)
        facts["length bias"] = "yes: curate with --balance-length" if bias.fires else "no"
    return facts


def _spread(lengths: list[int]) -> dict[str, float]:
    if len(lengths) < 2:
        return {"only": lengths[0]}
    cuts = quantiles(lengths, n=100, method="inclusive")
    return {"least": min(lengths), "half": cuts[49], "99 %": cuts[98], "most": max(lengths)}


def _copies(texts: list[str]) -> dict[str, int]:
    seen, exact, near = Seen(), 0, 0
    for number, text in enumerate(texts):
        if seen.same(text) is not None:
            exact += 1
        elif seen.near(text) is not None:
            near += 1
        else:
            seen.add(number, text)
    return {"exact duplicates": exact, "near duplicates": near}
