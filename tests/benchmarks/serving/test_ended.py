"""A benchmark that is ended, however it is ended, leaves no process."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from lora_compose.server.client.process import COMMAND

SECONDS = 60.0
GAP = 0.3


def server_of(bench: psutil.Process) -> psutil.Process:
    """The server that the benchmark has started."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        for child in bench.children(recursive=True):
            if "--port" in child.cmdline():
                return child
        time.sleep(0.05)
    raise AssertionError("the benchmark started no server")


@pytest.mark.parametrize(
    "numbers",
    [
        [signal.SIGTERM],
        [signal.SIGTERM, signal.SIGTERM],
        [signal.SIGINT, signal.SIGINT],
        [signal.SIGHUP],
        [signal.SIGKILL],
    ],
    ids=lambda numbers: "+".join(number.name for number in numbers),
)
@pytest.mark.usefixtures("hangup")
def test_a_benchmark_that_a_signal_ends_leaves_no_process(
    tmp_path: Path, numbers: list[signal.Signals]
) -> None:
    command = [COMMAND, "bench", "serve", "--quick", "--output", str(tmp_path / "bench.json")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as bench:
        seen = [server_of(psutil.Process(bench.pid))]
        time.sleep(GAP)
        seen += seen[0].children(recursive=True)
        for number in numbers:
            bench.send_signal(number)
            time.sleep(GAP)
        bench.wait(SECONDS)
    _, left = psutil.wait_procs(seen, SECONDS)
    assert [process.cmdline() for process in left] == []


BENCHMARK = """
import json, os, time
print(json.dumps({"progress": {"done": os.getpid()}}), flush=True)
time.sleep(600)
"""
FOLLOWED = """
import asyncio, os, sys
from pathlib import Path
from lora_compose.server.benchmarks.process import follow

async def main():
    show = lambda progress: print(progress["done"], flush=True)
    await follow([sys.executable, sys.argv[1]], Path("."), os.environ, show)

asyncio.run(main())
"""


def test_a_benchmark_of_a_server_that_is_killed_ends_with_it(tmp_path: Path) -> None:
    program = tmp_path / "benchmark.py"
    program.write_text(BENCHMARK)
    words = [sys.executable, "-c", FOLLOWED, str(program)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as server:
        assert server.stdout is not None
        benchmark = psutil.Process(int(server.stdout.readline()))
        server.kill()
    benchmark.wait(SECONDS)
