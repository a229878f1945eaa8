"""The rows of a run: read from files, checked for their form, mixed, and split into training and held-out
rows.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.training.base_model import load_tokenizer
from lora_compose.training.data.labels import LabelRule, count_labels
from lora_compose.training.data.mixing import Kind, mix, mix_sources, token_counter
from lora_compose.training.data.rows import ReadOptions, Rows, concatenated, read_rows
from lora_compose.training.data.unpaired import read_unpaired
from lora_compose.training.recipe import Recipe
from lora_compose.training.recipe_defaults import Method
from lora_compose.training.run_record import DatasetFacts, MixShare, Source
from lora_compose.training.tool_templates import check_tools

FORMS: Mapping[Method, tuple[str, ...]] = {
    "sft": ("instruction", "conversational"),
    "dpo": ("preference",),
    "kto": ("unpaired",),
}
"""The forms of rows that each method trains on."""


@dataclass(frozen=True)
class Examples:
    """The training rows, and the held-out rows for the evaluation loss. `held_out` may be None."""

    train: Any
    held_out: Any
    facts: DatasetFacts
    """For the record: the sources with their digests, and the actual ratio."""


def load_examples(recipe: Recipe) -> Examples:
    """Read and mix the recipe's files.

    Raises DataRejected for a bad row, and LoraComposeError("wrong_form") if the method cannot train on the
    rows of a file.
    """
    data, seed = recipe.data, recipe.training.seed
    parts = mix_sources(
        [_read(source, recipe, "general") for source in data.general],
        [_read(source, recipe) for source in data.domain],
        data.ratio,
    )
    counter = token_counter(load_tokenizer(recipe.model)) if data.mix_by == "tokens" else None
    mixed = mix(parts, total=data.rows, by=data.mix_by, seed=seed, count_tokens=counter)
    train, held_out = mixed.dataset, None
    if data.held_out:
        held_out = _concatenated([_read(source, recipe) for source in data.held_out])
    elif data.held_out_share:
        train, held_out = _split(train, data.held_out_share, seed)
    if recipe.method == "kto":
        train = comparable(train, recipe)
        check_labels(train)
    return Examples(
        train,
        held_out,
        DatasetFacts(
            sources=[
                Source(
                    source=part.rows.source,
                    kind=part.kind,
                    rows=len(part.rows.dataset),
                    digest=part.rows.digest,
                    remarks=part.rows.remarks,
                    dropped=len(part.rows.dropped),
                    left_out=part.rows.left_out,
                )
                for part in parts
            ],
            mix=[MixShare(**asdict(achieved)) for achieved in mixed.achieved],
            train_rows=len(train),
            held_out_rows=0 if held_out is None else len(held_out),
        ),
    )


def _split(rows: Any, share: float, seed: int) -> tuple[Any, Any]:
    if round(len(rows) * share) in (0, len(rows)):
        raise LoraComposeError(
            CommandCode.NO_ROWS,
            f"held_out_share {share:g} of {len(rows)} rows leaves no rows to hold out or "
            "to train on. Use more rows or another share, or name a file with held_out.",
            "held_out_share",
        )
    split = rows.train_test_split(test_size=share, seed=seed)
    return split["train"], split["test"]


def comparable(rows: Any, recipe: Recipe) -> Any:
    """The rows for KTO without a last batch of one row, which could not be compared with another row.

    TRL rotates the answers within each batch, so a single row would be compared with itself.
    """
    alone = len(rows) % recipe.training.per_device_train_batch_size == 1
    return rows.select(range(len(rows) - 1)) if alone and len(rows) > 1 else rows


def check_labels(rows: Any) -> None:
    """Raises LoraComposeError("wrong_form") if the rows for KTO are all good or all bad."""
    good, bad = count_labels(rows["label"])
    if good and bad:
        return
    kind, advice = (
        ("good", "train them with `train sft`")
        if good
        else ("bad", "add good answers, or correct the labels")
    )
    raise LoraComposeError(
        CommandCode.WRONG_FORM,
        f"All {good + bad} answers are {kind}, but kto learns from good and bad ones: {advice}",
        "domain",
    )


def _read(source: str, recipe: Recipe, kind: Kind = "domain") -> Rows:
    options = ReadOptions(recipe.data.bad_rows, recipe.data.encoding)
    if recipe.method == "kto":
        labels = recipe.labels
        rule = LabelRule(labels.label_column, labels.good_from, tuple(labels.good_labels))
        return _writable(read_unpaired(source, options, rule, unlabelled_are_good=kind == "general"), recipe)
    rows = read_rows(source, options)
    if rows.form not in FORMS[recipe.method]:
        forms = " or ".join(FORMS[recipe.method])
        other = {"preference": "dpo", "unpaired": "kto"}.get(rows.form, "sft")
        raise LoraComposeError(
            CommandCode.WRONG_FORM,
            f"{source} has {rows.form} rows, but {recipe.method} trains on {forms} rows. "
            f"`train {other}` trains on {rows.form} rows",
            "domain",
        )
    return _writable(rows, recipe)


def _writable(rows: Rows, recipe: Recipe) -> Rows:
    """The rows, if the base's chat template writes their tools."""
    if rows.uses_tools:
        check_tools(rows, load_tokenizer(recipe.model))
    return rows


def _concatenated(sources: list[Rows]) -> Any:
    return concatenated(sources[0].form, [rows.dataset for rows in sources])
