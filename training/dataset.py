"""The rows of a run: read from files, checked for their form, mixed, and split into training and held-out
rows.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.training.base_model import load_tokenizer
from lora_compose.training.data.mixing import mix, mix_sources, token_counter
from lora_compose.training.data.rows import ReadOptions, Rows, read_rows
from lora_compose.training.recipe import Method, Recipe
from lora_compose.training.run_record import DatasetFacts, MixShare, Source

FORMS: Mapping[Method, tuple[str, ...]] = {"sft": ("instruction", "conversational"), "dpo": ("preference",)}
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
        [_read(source, recipe) for source in data.general],
        [_read(source, recipe) for source in data.domain],
        data.ratio,
    )
    counter = token_counter(load_tokenizer(recipe.model)) if data.mix_by == "tokens" else None
    mixed = mix(parts, total=data.rows, by=data.mix_by, seed=seed, count_tokens=counter)
    train, held_out = mixed.dataset, None
    if data.held_out:
        held_out = _concatenated([_read(source, recipe) for source in data.held_out])
    elif data.held_out_share:
        if round(len(train) * data.held_out_share) in (0, len(train)):
            raise LoraComposeError(
                CommandCode.NO_ROWS,
                f"held_out_share {data.held_out_share:g} of {len(train)} rows leaves no rows to hold out or "
                "to train on. Use more rows or another share, or name a file with held_out.",
                "held_out_share",
            )
        split = train.train_test_split(test_size=data.held_out_share, seed=seed)
        train, held_out = split["train"], split["test"]
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
                )
                for part in parts
            ],
            mix=[MixShare(**asdict(achieved)) for achieved in mixed.achieved],
            train_rows=len(train),
            held_out_rows=0 if held_out is None else len(held_out),
        ),
    )


def _read(source: str, recipe: Recipe) -> Rows:
    rows = read_rows(source, ReadOptions(recipe.data.bad_rows, recipe.data.encoding))
    if rows.form not in FORMS[recipe.method]:
        forms = " or ".join(FORMS[recipe.method])
        raise LoraComposeError(
            CommandCode.WRONG_FORM,
            f"{source} has {rows.form} rows, but {recipe.method} trains on {forms} rows",
            "domain",
        )
    return rows


def _concatenated(sources: list[Rows]) -> Any:
    from datasets import concatenate_datasets

    return concatenate_datasets([rows.dataset for rows in sources])
