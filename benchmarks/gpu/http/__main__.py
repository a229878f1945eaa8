"""Runs the checks over HTTP on a GPU. Each finding is one line of JSON."""

import argparse
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from lora_compose.benchmarks.gpu.http.demo import demo
from lora_compose.benchmarks.gpu.http.product import ProductRun, ensure_command, serving
from lora_compose.benchmarks.gpu.http.random_weights import big
from lora_compose.benchmarks.gpu.run import CheckRun, Device, device_name, work_directory

TAIL_CHARACTERS = 2500


def plain(product: ProductRun) -> None:
    """Does `lora-compose serve` start with every default? One finding."""
    options = ["--data-dir", str(product.out / "plain-data")]
    with serving(product.out / "plain-server.log", options) as server:
        models = server.client.models()
        product.run.say("plain", ok=True, seconds=round(server.start_seconds, 1), models=models)


CHECKS: dict[str, Callable[[ProductRun], None]] = {"demo": demo, "big": big, "plain": plain}
CHECKS_HELP = (
    "demo: right answers and a fusion. big: `bench serve` on an 8B shape. plain: `serve` with every default"
)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m lora_compose.benchmarks.gpu.http",
        description="Check the product over HTTP on a GPU. Each finding is a line of JSON.",
    )
    parser.add_argument("checks", nargs="+", choices=CHECKS, metavar="CHECK", help=CHECKS_HELP)
    parser.add_argument(
        "--cpu", action="store_true", help="rehearse on a CPU build of vLLM with small shapes"
    )
    parser.add_argument(
        "--work", type=Path, default=work_directory(), help="directory for models and adapters"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=os.environ.get("OUT"),
        help="directory for logs and results; default: $OUT, else --work",
    )
    parser.add_argument("--arms", default="base,single,stack:2,stack:4,direct", help="of the check `big`")
    parser.add_argument("--concurrency", default="8,64", help="of the check `big`")
    parser.add_argument("--bench-seconds", type=int, default=120, help="limit of one benchmark; default: 120")
    return parser.parse_args(arguments)


def run_check(product: ProductRun, check: Callable[[ProductRun], None]) -> bool:
    """Whether the check came to its end. What it raises becomes a finding, and the next check goes on."""
    began, error = time.perf_counter(), ""
    try:
        check(product)
    except Exception:  # noqa: BLE001  a fault of the product is a finding here
        error = traceback.format_exc()[-TAIL_CHARACTERS:]
    product.run.say("end", ok=not error, error=error, seconds=round(time.perf_counter() - began, 1))
    return not error


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 if every check came to its end."""
    options = parse(arguments)
    out = (options.out or options.work).resolve()
    out.mkdir(parents=True, exist_ok=True)
    ensure_command()
    device: Device = "cpu" if options.cpu else "cuda"
    name = device_name(device)
    ended = []
    for check in options.checks:
        run = CheckRun(check, device, name, options.work)
        product = ProductRun(run, out, options.arms, options.concurrency, options.bench_seconds)
        ended.append(run_check(product, CHECKS[check]))
    return 0 if all(ended) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
