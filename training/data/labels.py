"""Labels that say whether an answer is good or bad, for one answer without the other of a pair."""

from collections.abc import Sequence
from typing import Final

from lora_compose.adapters.errors import CommandCode
from lora_compose.training.data.errors import DataRejected
from lora_compose.training.data.records import SourceRecord

COLUMNS: Final = ("label", "kto_tag", "desirable", "is_desirable", "is_good")
"""Columns that say it: `label` in TRL, `kto_tag` in LLaMA-Factory."""
GOOD: Final = ("1", "1.0", "+1", "true", "good", "chosen", "desirable", "up", "thumbs_up")
BAD: Final = ("0", "0.0", "-1", "-1.0", "false", "bad", "rejected", "undesirable", "down", "thumbs_down")


def refuse_bad_answers(source: str, records: Sequence[SourceRecord]) -> None:
    """Raise DataRejected("wrong_form") if a column marks answers as good and bad, and some are bad.

    A column that also has other values is not such a label: it may be the class of a text.
    """
    for column in COLUMNS:
        values = [_value(record, column) for record in records]
        labels = [str(value).strip().casefold() for value in values if value is not None]
        bad = sum(label in BAD for label in labels)
        if bad and all(label in GOOD or label in BAD for label in labels):
            raise DataRejected(
                CommandCode.WRONG_FORM,
                f"{source} marks {bad} of {len(labels)} answers as bad in the column {column}. sft would "
                "learn the bad answers too. Write pairs of prompt, chosen and rejected for dpo, or keep only "
                "the good answers. Learning from unpaired answers (KTO) is not supported. If the column has "
                "another meaning, rename it",
                "source",
            )


def _value(record: SourceRecord, column: str) -> object:
    fields = record.fields or {}
    return next((held for name, held in fields.items() if str(name).strip().casefold() == column), None)
