"""Checks of a model's weights: files, dtype and memory."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.server.doctor.check import Finding, fail, ok, warn
from lora_compose.server.memory import GIB, plan_kv_cache

INDEX = "model.safetensors.index.json"
DTYPES = ("float32", "float16", "bfloat16")
AGAIN = "Download the missing or incomplete files again"


def weights_are_whole(directory: Path) -> Finding:
    """Checks the headers and sizes of all shards, and that they hold the tensors of the index.

    Reads no tensor."""
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        return _without_safetensors(directory)
    tensors: dict[str, set[str]] = {}
    for path in files:
        try:
            with safe_open(path, framework="numpy") as file:
                tensors[path.name] = set(file.keys())
        except SafetensorError as error:
            return fail(f"{path.name} is damaged: {error}", AGAIN)
    missing = _missing_from_index(directory, tensors)
    if missing:
        return fail(f"{INDEX} lists {len(missing)} tensors that are missing, for example {missing[0]}", AGAIN)
    total = sum(path.stat().st_size for path in files)
    count = sum(map(len, tensors.values()))
    return ok(f"{count} tensors in {len(files)} files, {total / 1e6:.1f} MB")


def _without_safetensors(directory: Path) -> Finding:
    if any(directory.glob("*.bin")):
        return fail(
            "the weights are pickles (*.bin), which can run code and cannot be fused",
            "Save the model again with save_pretrained, which writes safetensors",
        )
    return fail("there are no *.safetensors files", "Download the weights too, not only the configuration")


def _missing_from_index(directory: Path, tensors: dict[str, set[str]]) -> list[str]:
    index = directory / INDEX
    if not index.is_file():
        return []
    placed: dict[str, str] = json.loads(index.read_text())["weight_map"]
    return sorted(f"{name} in {file}" for name, file in placed.items() if name not in tensors.get(file, ()))


def dtype(config: dict[str, Any]) -> Finding:
    found = config.get("dtype") or config.get("torch_dtype")
    quantized = config.get("quantization_config")
    if isinstance(quantized, dict):
        return ok(f"quantized ({quantized.get('quant_method', 'unknown method')}); it computes in {found}")
    if found is None:
        return warn(
            "config.json names no dtype, so float32 is used",
            "Choose one, for example `serve --dtype bfloat16`",
        )
    if found not in DTYPES:
        return fail(f"vLLM does not support the dtype {found!r}", f"Use one of {', '.join(DTYPES)}")
    return ok(f"{found}; on CPUs `serve` uses float32 unless --dtype is given")


def fits_memory(directory: Path) -> Finding:
    """On a CPU, the sum that `serve` does when it starts. vLLM itself checks the memory of a GPU."""
    from lora_compose.server.engine.frontend.inspection import device

    stored = sum(path.stat().st_size for path in directory.glob("*.safetensors"))
    if device() != "cpu":
        return ok(f"{stored / GIB:.1f} GiB of weights; vLLM checks the GPU's memory when it starts")
    try:
        plan = plan_kv_cache(str(directory))
    except LoraComposeError as error:
        return fail(error.message, "`serve --dtype bfloat16` halves the memory of float32 weights")
    if plan.kv_cache_needed is not None and plan.kv_cache < plan.kv_cache_needed:
        advice = "It serves. With more free memory, more long requests run at the same time"
        return warn(plan.sentence(), advice)
    return ok(plan.sentence())
