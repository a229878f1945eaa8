"""The environment of an engine, which its libraries read when they are imported. Imports no vLLM."""

from pathlib import Path

from lora_compose.server.cpu_defaults import defaults_for, is_cpu_build


def engine_environment(model: str) -> dict[str, str]:
    """Defaults that vLLM and the Hub client read from the environment.

    Raises LoraComposeError if OMP_NUM_THREADS is not a number."""
    chosen = {"VLLM_NO_USAGE_STATS": "1"}
    # A serving process has threads. A fork of it could inherit a lock that is never released.
    chosen["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
    if is_cpu_build():
        # vLLM compiles a few helpers of its samplers at their first use. That takes seconds and a C++
        # compiler. Without a compiler the first request for logprobs would end the engine.
        chosen["TORCH_COMPILE_DISABLE"] = "1"
        chosen["OMP_NUM_THREADS"] = str(defaults_for(model).threads)
    if Path(model).is_dir():
        chosen["HF_HUB_OFFLINE"] = "1"
    return chosen
