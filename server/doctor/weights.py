"""Are a model's weights there and whole, in a dtype that can be served, and is there memory for them?"""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from lora_compose.server.doctor.check import Finding, fail, ok, warn
from lora_compose.server.doctor.machine import GIB, available_memory

INDEX = "model.safetensors.index.json"
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
AGAIN = "Download the files that are missing or cut again"


def weights_are_whole(directory: Path) -> Finding:
    """Headers and sizes of all shards, and that the index's tensors are where it says. Reads no tensor."""
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
        return fail(f"{INDEX} names {missing[0]}, and {len(missing)} such tensors are not there", AGAIN)
    total = sum(path.stat().st_size for path in files)
    count = sum(map(len, tensors.values()))
    return ok(f"{count} tensors in {len(files)} files, {total / 1e6:.1f} MB")


def _without_safetensors(directory: Path) -> Finding:
    if any(directory.glob("*.bin")):
        return fail(
            "the weights are pickles (*.bin), which can run code and cannot be fused",
            "Save the model again with save_pretrained, which writes safetensors",
        )
    return fail("there are no *.safetensors", "Download the weights as well, not only the configuration")


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
        return ok(f"quantized ({quantized.get('quant_method', 'unknown method')}); computes in {found}")
    if found is None:
        return warn("config.json names no dtype, so float32 is taken", "Say which: `serve --dtype bfloat16`")
    if found not in BYTES:
        return fail(f"{found!r} is no dtype vLLM computes in", f"Use one of {', '.join(BYTES)}")
    return ok(f"{found}; on CPUs `serve` computes in float32 unless --dtype says otherwise")


def fits_memory(directory: Path, config: dict[str, Any]) -> Finding:
    """On a CPU, where the weights lie in main memory; a GPU's is asked for by vLLM itself."""
    from lora_compose.server.engine.frontend.inspection import device

    stored = sum(path.stat().st_size for path in directory.glob("*.safetensors"))
    if device() != "cpu":
        return ok(f"{stored / GIB:.1f} GiB of weights; vLLM sizes the GPU's memory when it starts")
    width = BYTES.get(str(config.get("dtype") or config.get("torch_dtype")), 4)
    needed = stored if config.get("quantization_config") else stored * 4 // width
    free = available_memory()
    words = f"the weights take {needed / GIB:.1f} GiB in float32 and {free / GIB:.1f} GiB are free"
    if needed > free:
        return fail(words, "Take a smaller model, more memory, or `serve --dtype bfloat16`")
    if needed > free * 0.7:
        return warn(words, "Leave room for the KV cache and adapters: set VLLM_CPU_KVCACHE_SPACE")
    return ok(words)
