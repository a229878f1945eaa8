"""`python -m benchmarks.throughput`: what adapters, stacks and our server cost against the bare base."""

from benchmarks.cli import throughput_app

if __name__ == "__main__":
    throughput_app(prog_name="python -m benchmarks.throughput")
