"""`python -m benchmarks.throughput`: what adapters, stacks and our server cost against the bare base."""

import signal

from benchmarks.cli import throughput_app

if __name__ == "__main__":
    # The servers are in sessions of their own: unwind as for Ctrl-C, so that they end too.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    throughput_app(prog_name="python -m benchmarks.throughput")
