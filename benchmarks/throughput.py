"""`python -m benchmarks.throughput`: what adapters, stacks and our server cost against the bare base."""

import signal
import sys

from benchmarks.cli import throughput_app

if __name__ == "__main__":
    # The servers are in sessions of their own: end by unwinding, so that they end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    throughput_app(prog_name="python -m benchmarks.throughput")
