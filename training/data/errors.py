"""Errors of training data.

`BadRow` is an error of one row. The reader collects them into one `DataRejected`.
"""

from lora_compose.adapters.errors import LoraComposeError


class DataRejected(LoraComposeError):
    """A data source that cannot be used. The message names the place and what to do."""


class BadRow(ValueError):
    """Why one row cannot be used. It is not raised outside this package: the reader adds file and line."""
