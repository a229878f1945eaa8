"""The `lora-compose` script. It handles signals before it imports a command, which can take a second."""

import os
import signal
import sys
from typing import NoReturn

SERVE = "serve"


def main() -> None:
    """Run the command line. SIGINT and SIGTERM end it with one line, and its `finally` blocks run."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    from lora_compose.adapters.command_line import main as run

    run()


def _stop(number: int, _: object) -> NoReturn:
    """For a server a signal is the usual end: its exit code is 0, and a second signal changes nothing."""
    os.write(2, b"stopped\n")
    if sys.argv[1:2] != [SERVE]:
        sys.exit(128 + number)
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    sys.exit(0)
