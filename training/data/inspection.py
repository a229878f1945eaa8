"""What is in a data source, without changing anything."""

from collections import Counter
from statistics import quantiles
from typing import Any

from training.data.outliers import languages
from training.data.pii import find
from training.data.preferences import length_bias
from training.data.reading import Rows
from training.data.similar import Seen
from training.data.texts import answers, asked_text, whole_text


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
