"""Turns off log lines and progress bars of other libraries, so that a command prints only its own lines."""

import logging
import sys


def quiet_libraries() -> None:
    """Turn off a warning about an optional CPU kernel, and progress bars if stderr is not a terminal."""
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    if sys.stderr.isatty():
        return
    import datasets
    from transformers.utils import logging as transformers_logging

    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()
