"""What data can be refused for. `BadRow` is one row's fault.

The reader gathers them into one `DataRejected`.
"""

from lora_compose.adapters.errors import LoraComposeError


class DataRejected(LoraComposeError):
    """A data source that cannot be used as it is: the message says where and what to do."""


class BadRow(ValueError):
    """Why one row cannot be used. Never leaves this package: the reader adds file and line."""
