"""Runs the checks of the engine's hooks on a GPU. Each finding is one line of JSON.

Each part is a process of its own with its own limit, so that no part ends the others.
"""

import argparse
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from lora_compose.benchmarks.gpu.parts.table import CPU_FACTOR, PARTS, PLAN, Step
from lora_compose.benchmarks.gpu.rehearsal import interpret_kernels, take_device_branch
from lora_compose.benchmarks.gpu.run import LINE_START, CheckRun, Device, device_name, work_directory
from lora_compose.server.engine.kernel_choice import LoraKernels

MODULE = "lora_compose.benchmarks.gpu"
LEAST_SECONDS = 20
TAIL_CHARACTERS = 1500
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
    "VLLM_ALLOW_INSECURE_SERIALIZATION": "1",
}
"""For vLLM: in one process, no network, no package that the kit leaves out, and functions as RPC."""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options. Exits with 2 for a part that does not exist."""
    about = "\n".join(f"  {part.name:8} {part.about}" for part in PARTS.values())
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}",
        description="Check the engine's hooks on a GPU. Each finding is a line of JSON.",
        epilog=f"parts:\n{about}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--parts", type=_part_names, help="names with commas; default: the plan for a GPU, or all on a CPU"
    )
    parser.add_argument("--seconds", type=float, default=520, help="limit of the whole; default: 520")
    parser.add_argument(
        "--cpu", action="store_true", help="rehearse on a CPU build of vLLM with small shapes"
    )
    parser.add_argument(
        "--device-branch", action="store_true", help="on a CPU, use the LoRA manager that GPUs use"
    )
    parser.add_argument("--eager", action="store_true", help="run the part `big` without CUDA graphs")
    parser.add_argument(
        "--kernels", choices=("vllm", "pooled"), default="vllm", help="the LoRA kernels: vLLM's or ours"
    )
    parser.add_argument(
        "--work", type=Path, default=work_directory(), help="directory for models and adapters"
    )
    parser.add_argument(
        "--logs",
        type=Path,
        default=os.environ.get("OUT"),
        help="directory for logs; default: $OUT, else --work",
    )
    parser.add_argument("--child", choices=PARTS, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _part_names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no part is called {unknown[0]!r}. The parts are {', '.join(PARTS)}"
        )
    return names


def steps_of(options: argparse.Namespace) -> list[Step]:
    """The parts that run, each with its kernels."""
    if options.parts is None and not options.cpu:
        return list(PLAN)
    return [(name, options.kernels) for name in options.parts or PARTS]


def run_of(options: argparse.Namespace, part: str, kernels: LoraKernels) -> CheckRun:
    """What `part` has to know."""
    device: Device = "cpu" if options.cpu else "cuda"
    return CheckRun(part, device, device_name(device), options.work, options.eager, kernels)


def run_part(run: CheckRun, arguments: Sequence[str], seconds: float, log: Path) -> bool:
    """Whether the part came to its end. Passes its findings on as they come; all else goes to the log."""
    began, killed = time.perf_counter(), threading.Event()
    command = [sys.executable, "-m", MODULE, *arguments, "--child", run.part]
    environment = ENVIRONMENT | dict(os.environ)
    with (
        log.open("w") as rest,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=rest, text=True, env=environment) as child,
    ):

        def kill() -> None:
            killed.set()
            child.kill()

        clock = threading.Timer(seconds, kill)
        clock.start()
        assert child.stdout is not None
        for line in child.stdout:
            to = sys.stdout if line.startswith(LINE_START) else rest
            to.write(line)
            to.flush()
        code = child.wait()
        clock.cancel()
    reason = "out of time" if killed.is_set() else f"exit {code}" if code else ""
    tail = log.read_text(errors="replace")[-TAIL_CHARACTERS:] if reason else ""
    run.say("end", ok=not reason, reason=reason, seconds=round(time.perf_counter() - began, 1), tail=tail)
    return not reason


def run_parts(options: argparse.Namespace, arguments: Sequence[str]) -> bool:
    """Whether all parts came to their end. A finding that is not ok does not change that."""
    logs = options.logs or options.work
    logs.mkdir(parents=True, exist_ok=True)
    end = time.perf_counter() + options.seconds
    ended = []
    for name, kernels in steps_of(options):
        run, left = run_of(options, name, kernels), end - time.perf_counter()
        if left < LEAST_SECONDS:
            run.say("end", ok=False, reason="no time left")
            ended.append(False)
            continue
        limit = PARTS[name].seconds * (CPU_FACTOR if run.on_cpu else 1)
        own = [*arguments, "--kernels", kernels]
        ended.append(run_part(run, own, min(left, limit), logs / f"{name}-{kernels}.log"))
    return all(ended)


def main(arguments: Sequence[str]) -> int:
    """The exit code."""
    options = parse(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    if options.child is None:
        return 0 if run_parts(options, arguments) else 1
    if options.device_branch:
        take_device_branch()
    if options.cpu and options.child == "kernels":
        interpret_kernels()
    PARTS[options.child].load()(run_of(options, options.child, options.kernels))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
