"""Keeps other libraries from talking between a command's own lines."""

import logging
import sys


def hush() -> None:
    """No complaint about a kernel that nobody needs; no bars of libraries where no one watches them."""
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    if sys.stderr.isatty():
        return
    import datasets
    from transformers.utils import logging as transformers_logging

    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()
