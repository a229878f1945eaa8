"""`lora-compose data`: inspect, curate and mix training data."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lora_compose.adapters.command_line import AsJson, echo_json
from lora_compose.adapters.models.cache import resolve
from lora_compose.adapters.terminal import status, stdout
from lora_compose.training.data.jsonl_output import check_output, write_rows, write_text
from lora_compose.training.data.pii import REGIONS

if TYPE_CHECKING:
    from lora_compose.training.data.rows import Rows

app = typer.Typer(
    name="data",
    help="Inspect, curate and mix training data: JSONL, JSON, CSV, Parquet, and Hugging Face data sets.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
)

Source = Annotated[
    str,
    typer.Argument(
        help="A file, a directory or pattern of files, a saved data set, or a hub id.", metavar="SOURCE"
    ),
]
BadRowsOption = Annotated[
    str, typer.Option("--bad-rows", help="What to do with rows that cannot be used.", metavar="stop|drop")
]
Encoding = Annotated[
    str | None,
    typer.Option(help="Encoding of text files that are not UTF-8; detected by default.", metavar="NAME"),
]
LabelColumn = Annotated[
    str | None,
    typer.Option(help="Column that says if an answer is good; known names are found.", metavar="NAME"),
]
GoodFrom = Annotated[
    float | None, typer.Option(help="Ratings from this number on are good, others bad.", metavar="NUMBER")
]
GoodLabels = Annotated[
    list[str] | None, typer.Option(help="Labels that mean good; all others mean bad. Repeatable.")
]
Output = Annotated[Path, typer.Argument(help="The JSONL file to write.", metavar="OUT")]
Force = Annotated[bool, typer.Option("--force", help="Replace OUT.")]
Seed = Annotated[int, typer.Option(help="Seed of all random choices.")]


@app.command()
def inspect(
    source: Source,
    label_column: LabelColumn = None,
    good_from: GoodFrom = None,
    good_labels: GoodLabels = None,
    bad_rows: BadRowsOption = "stop",
    encoding: Encoding = None,
    as_json: AsJson = False,
) -> None:
    """Show facts about a data source: form, lengths, duplicates, personal data, languages and length bias.

    Rows whose answers are marked as good or bad are rows for `train kto`. Nothing is changed.

    - `lora-compose data inspect training/recipes/data/roll.jsonl`
    """
    from lora_compose.training.data.reports import inspect as inspected

    found = inspected(_read(source, bad_rows, encoding, (label_column, good_from, good_labels)))
    if as_json:
        echo_json(found)
        return
    from lora_compose.training.data.reports import facts_table

    stdout().print(facts_table(found))


@app.command()
def curate(
    source: Source,
    output: Output,
    against: Annotated[
        list[str] | None,
        typer.Option(
            help="Evaluation data. A row with the same question as one of its rows is an error. Repeatable.",
            metavar="SOURCE",
        ),
    ] = None,
    drop_leaks: Annotated[
        bool, typer.Option("--drop-leaks", help="Drop rows that ask questions of the evaluation data.")
    ] = False,
    similarity: Annotated[
        float,
        typer.Option(min=0.3, max=1, help="Rows with at least this Jaccard similarity are near duplicates."),
    ] = 0.8,
    mask: Annotated[bool, typer.Option("--mask/--no-mask", help="Mask personal data in prompts.")] = True,
    mask_answers: Annotated[
        bool,
        typer.Option(
            "--mask-answers",
            help="Mask all personal data in answers too. The model then learns to write tags.",
        ),
    ] = False,
    regions: Annotated[
        str, typer.Option(help="Regions of telephone numbers to mask, as ISO codes.")
    ] = ",".join(REGIONS),
    min_chars: Annotated[int, typer.Option(min=0, help="Drop shorter answers.")] = 1,
    max_chars: Annotated[int | None, typer.Option(min=1, help="Drop longer answers.")] = None,
    languages: Annotated[
        str, typer.Option(help="Keep only these languages, as ISO codes.", metavar="en,ko")
    ] = "",
    balance_length: Annotated[
        bool,
        typer.Option(
            "--balance-length",
            help="Preferences: drop pairs until longer and shorter answers are chosen equally often.",
        ),
    ] = False,
    max_dropped: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Stop if duplicates or contradictions are a larger share of the rows."
        ),
    ] = 0.5,
    label_column: LabelColumn = None,
    good_from: GoodFrom = None,
    good_labels: GoodLabels = None,
    bad_rows: BadRowsOption = "stop",
    encoding: Encoding = None,
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Mask personal data, drop duplicates and near duplicates, and check for rows of the evaluation data.

    A report on every step is written to OUT.report.json. Curating the result again changes nothing.

    - `lora-compose data curate raw.jsonl clean.jsonl --against held-out.jsonl`
    - `lora-compose data curate pairs.jsonl clean.jsonl --balance-length`
    """
    from lora_compose.training.data.curation import Options
    from lora_compose.training.data.curation import curate as curated_rows
    from lora_compose.training.data.rows import digest_of

    check_output(output, force)
    options = Options(
        near=similarity,
        drop_leaks=drop_leaks,
        mask=mask,
        mask_answers=mask_answers,
        regions=_codes(regions),
        shortest=min_chars,
        longest=max_chars,
        languages=_codes(languages.casefold()),
        balance_length=balance_length,
        max_dropped=max_dropped,
        seed=seed,
    )
    rows = _read(source, bad_rows, encoding, (label_column, good_from, good_labels))
    evaluation = [_read(name, bad_rows, encoding) for name in against or []]
    with status("curating") as on_progress:
        curated = curated_rows(rows, evaluation, options, on_progress)
    report = {
        "source": source,
        "digest": rows.digest,
        "rows": len(rows.dataset),
        "bad_rows": list(rows.dropped),
        "notes": list(rows.notes),
        "left": len(curated.rows),
        "left_digest": digest_of(curated.rows),
        "steps": [
            {
                "step": result.step,
                "touched": result.touched,
                "dropped": result.dropped,
                "examples": list(result.examples),
                **result.facts,
            }
            for result in curated.results
        ],
    }
    write_rows(output, curated.rows)
    write_text(
        output.with_name(f"{output.name}.report.json"), json.dumps(report, indent=1, ensure_ascii=False)
    )
    if as_json:
        echo_json(report)
        return
    from lora_compose.training.data.reports import result_table

    stdout().print(result_table(curated))
    if mask:
        typer.echo("Names of people and postal addresses are not masked: no step finds them.")
    typer.echo(f"{len(rows.dataset)} rows read, {len(curated.rows)} written to {output}")


@app.command()
def mix(
    output: Output,
    general: Annotated[list[str], typer.Option(help="General data. Repeatable.", metavar="SOURCE")],
    domain: Annotated[list[str], typer.Option(help="Domain data. Repeatable.", metavar="SOURCE")],
    ratio: Annotated[
        str, typer.Option(help="GENERAL:DOMAIN, for example 8:2 for four fifths of general data.")
    ],
    by: Annotated[str, typer.Option(help="What the ratio counts: examples or tokens.")] = "examples",
    model: Annotated[
        str | None, typer.Option(help="Model whose tokenizer counts the tokens.", metavar="DIR")
    ] = None,
    total: Annotated[
        int | None,
        typer.Option(
            min=1, help="Size of the mix, in the unit of --by; by default as large as the data allow."
        ),
    ] = None,
    bad_rows: BadRowsOption = "stop",
    encoding: Encoding = None,
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Mix general data with domain data at a given ratio. No row is used twice. Prints the actual shares.

    - `lora-compose data mix mix.jsonl --general general.jsonl --domain sql.jsonl --ratio 8:2`
    - `lora-compose data mix mix.jsonl --general g.jsonl --domain d.jsonl --ratio 1:1 --by tokens --model
      base`
    """
    from lora_compose.training.data.mixing import mix as mixed_rows
    from lora_compose.training.data.mixing import mix_sources, token_counter

    if by not in ("examples", "tokens"):
        raise typer.BadParameter("--by must be examples or tokens")
    check_output(output, force)
    parts = mix_sources(
        [_read(name, bad_rows, encoding) for name in general],
        [_read(name, bad_rows, encoding) for name in domain],
        ratio,
    )
    counter = None if model is None else token_counter(resolve(model))
    unit: Any = by
    mixed = mixed_rows(parts, total=total, by=unit, seed=seed, count_tokens=counter)
    write_rows(output, list(mixed.dataset))
    if as_json:
        echo_json([vars(achieved) for achieved in mixed.achieved])
        return
    from lora_compose.training.data.reports import mix_table

    stdout().print(mix_table(mixed.achieved))
    typer.echo(f"{len(mixed.dataset)} rows written to {output}")


Labels = tuple[str | None, float | None, list[str] | None]
"""The options --label-column, --good-from and --good-labels."""


def _read(source: str, bad_rows: str, encoding: str | None, labels: Labels = (None, None, None)) -> "Rows":
    """The rows of a source. What a user should know about them is printed on stderr."""
    from lora_compose.training.data.labels import LabelRule
    from lora_compose.training.data.rows import ReadOptions
    from lora_compose.training.data.unpaired import read_as_it_is

    if bad_rows not in ("stop", "drop"):
        raise typer.BadParameter("--bad-rows must be stop or drop")
    is_dropping: Any = bad_rows
    with status(f"reading {source}"):
        rule = LabelRule(labels[0], labels[1], tuple(labels[2] or ()))
        rows = read_as_it_is(source, ReadOptions(is_dropping, encoding), rule)
    for remark in rows.remarks:
        typer.echo(remark, err=True)
    return rows


def _codes(text: str) -> tuple[str, ...]:
    return tuple(code.strip() for code in text.split(",") if code.strip())
