"""Checks of a model's weights: files, dtype and memory."""

from pathlib import Path
from typing import Any

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.server.cpu_defaults import defaults_for
from lora_compose.server.doctor.check import Finding, fail, ok, warn
from lora_compose.server.memory import GIB, plan_kv_cache
from lora_compose.server.model_files import AGAIN, tensor_names, weights_problem

DTYPES = ("float32", "float16", "bfloat16")


def weights_are_whole(directory: Path) -> Finding:
    """Checks the headers and sizes of all shards, and that they hold the tensors of the index.

    Reads no tensor."""
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        return _without_safetensors(directory)
    problem = weights_problem(directory)
    if problem is not None:
        return fail(problem, AGAIN)
    total = sum(path.stat().st_size for path in files)
    count = sum(len(tensor_names(path)) for path in files)
    return ok(f"{count} tensors in {len(files)} files, {total / 1e6:.1f} MB")


def _without_safetensors(directory: Path) -> Finding:
    if any(directory.glob("*.bin")):
        return fail(
            "the weights are pickles (*.bin), which can run code and cannot be fused",
            "Save the model again with save_pretrained, which writes safetensors",
        )
    return fail("there are no *.safetensors files", "Download the weights too, not only the configuration")


def dtype(config: dict[str, Any]) -> Finding:
    found = config.get("dtype") or config.get("torch_dtype")
    quantized = config.get("quantization_config")
    if isinstance(quantized, dict):
        return ok(f"quantized ({quantized.get('quant_method', 'unknown method')}); it computes in {found}")
    if found is None:
        return warn(
            "config.json names no dtype, so a GPU uses float32",
            "Choose one, for example `serve --dtype bfloat16`",
        )
    if found not in DTYPES:
        return fail(f"vLLM does not support the dtype {found!r}", f"Use one of {', '.join(DTYPES)}")
    return ok(f"the weights are stored in {found}")


def chosen_for_cpu(directory: Path) -> Finding:
    """The line that `serve` logs on a CPU when it starts."""
    from lora_compose.server.engine.frontend.inspection import device

    if device() != "cpu":
        return ok("on a GPU `serve` uses vLLM's own choices")
    return ok(defaults_for(str(directory)).sentence())


def fits_memory(directory: Path) -> Finding:
    """On a CPU, the sum that `serve` does when it starts. vLLM itself checks the memory of a GPU."""
    from lora_compose.server.engine.frontend.inspection import device

    stored = sum(path.stat().st_size for path in directory.glob("*.safetensors"))
    if device() != "cpu":
        return ok(f"{stored / GIB:.1f} GiB of weights; vLLM checks the GPU's memory when it starts")
    try:
        plan = plan_kv_cache(str(directory), defaults_for(str(directory)).dtype)
    except LoraComposeError as error:
        return fail(error.message, "`serve --dtype bfloat16` halves the memory of float32 weights")
    if plan.kv_cache_needed is not None and plan.kv_cache < plan.kv_cache_needed:
        advice = "It serves. With more free memory, more long requests run at the same time"
        return warn(plan.sentence(), advice)
    return ok(plan.sentence())
