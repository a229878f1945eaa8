"""How the process of a server ends."""

import logging
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from lora_compose.adapters.command_line import error_line
from lora_compose.adapters.errors import LoraComposeError
from lora_compose.server.engine.frontend import early_process
from lora_compose.server.engine.frontend.loading import kill

logger = logging.getLogger(__name__)


def end_now(*_: object) -> NoReturn:
    """Handle a signal: end this process at once, with the processes that `multiprocessing` has started."""
    kill(multiprocessing.active_children())
    early_process.end()
    with suppress(RuntimeError):  # another line is being written
        logger.info("stopped")
    os._exit(0)


@contextmanager
def leaving() -> Iterator[None]:
    """End this process after the block, with the processes that `multiprocessing` has started.

    A LoraComposeError becomes one line and exit code 1. The interpreter's own end is left out: threads of
    vLLM may still load a model, and native libraries would list what they have not freed."""
    code = 0
    try:
        yield
    except LoraComposeError as error:
        code = 1
        sys.stderr.write(f"{error_line(error)}\n")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException:  # noqa: BLE001  the process ends below
        code = 1
        traceback.print_exc()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    kill(multiprocessing.active_children())
    early_process.end()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
