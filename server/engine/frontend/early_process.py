"""Imports vLLM for the engine's process while this process imports it too.

vLLM starts its engine in a new interpreter, which imports everything again after this process has. Here the
engine is a fork of Python's "fork server": a process that is started with the server, imports vLLM meanwhile,
has one thread, and computes nothing. A later engine is forked from it too, so a restart imports nothing.

Only the build of vLLM for CPUs uses it. Imports no vLLM.
"""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Final

import psutil
from typing_extensions import override

IMPORTED: Final = (
    "vllm.v1.engine.core",
    "vllm.v1.worker.cpu_worker",
    "vllm.v1.worker.cpu_model_runner",
    "lora_compose.server.engine.worker.extension",
    "lora_compose.server.engine.worker.runtime_weights",
    "lora_compose.server.engine.cpu.punica_wrapper",
)
"""What an engine imports before it reads the model."""


def import_early(environment: Mapping[str, str]) -> None:
    """Start the process that imports vLLM. `environment` has defaults of variables that libraries read.

    It must be called in the main thread. Ctrl-C does not reach the process; `end` ends it."""
    multiprocessing.set_forkserver_preload(list(IMPORTED))
    # What is blocked stays blocked in a new program. This process gets a signal of meanwhile afterwards.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with in_environment({**environment, **_openmp_library()}):
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def is_running() -> bool:
    """Whether `import_early` was called in this process."""
    return any(map(_is_early, psutil.Process().children()))


def end() -> None:
    """Kill the process, which would otherwise import on for some seconds."""
    for child in filter(_is_early, psutil.Process().children()):
        with suppress(psutil.NoSuchProcess):
            child.kill()


def _is_early(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return any("multiprocessing.forkserver" in word for word in process.cmdline())
    return False


class EngineProcess(ForkServerProcess):
    """A process with the environment that this process has when it starts, as a new interpreter would."""

    @override
    def start(self) -> None:
        self._environment = dict(os.environ)
        super().start()

    @override
    def run(self) -> None:
        import torch

        os.environ.clear()
        os.environ.update(self._environment)
        # OpenMP has read this variable before the fork. vLLM may have changed it since.
        if "OMP_NUM_THREADS" in self._environment:
            torch.set_num_threads(int(self._environment["OMP_NUM_THREADS"]))
        super().run()


class EngineContext(ForkServerContext):
    """The context whose processes are `EngineProcess`."""

    Process = EngineProcess


def engine_context() -> ForkServerContext:
    """In place of vLLM's `get_mp_context` where it starts an engine."""
    return EngineContext()


@contextmanager
def in_environment(defaults: Mapping[str, str]) -> Iterator[None]:
    """Give `defaults` to a process that starts meanwhile. Variables that are set win."""
    missing = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            del os.environ[name]


def _openmp_library() -> dict[str, str]:
    """Preloads torch's OpenMP library, as vLLM does for its engine.

    The loader separates paths by blanks and colons, so a path that has one cannot be preloaded."""
    torch = find_spec("torch")
    found = sorted(Path(torch.origin).parent.glob("lib/libgomp*.so*")) if torch and torch.origin else []
    usable = [path for path in map(str, found) if not {*" :"} & {*path}]
    return {"LD_PRELOAD": usable[0]} if usable else {}
