"""Pairs an adapter's tensors and holds their names, types and shapes against the base, from the header alone.

Not one weight is read here, so a file of another base costs no time. Every refusal names the tensor, what it
is and what it should be.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from adapters.adapter_config import AdapterConfig
from adapters.base_shapes import BaseShapes, layer_of
from adapters.errors import AdapterRejected
from adapters.safetensors_header import TensorEntry

_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_KEY = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
_NUMBER = re.compile(r"(?<=\.)[0-9]+(?=\.)")

# Tensors of PEFT features beyond a plain LoRA: (part of the name, what it belongs to).
_FOREIGN = (
    ("lora_embedding_", "a LoRA of an embedding"),
    ("lora_magnitude_vector", "DoRA"),
    (".lora_B.bias", "lora_bias"),
    ("lora_velora", "VeLoRA"),
    ("lora_monteclora", "MonteCLoRA"),
    ("lora_diag", "KaSA"),
    ("modules_to_save", "modules_to_save"),
    (".base_layer.", "a copy of the base's own weights"),
    ("trainable_tokens", "trainable_token_indices"),
)


@dataclass(frozen=True)
class Pair:
    """The two factors of one module, by tensor name. Their shapes are (rank, d_in) and (d_out, rank)."""

    module: str
    rank: int
    parameters: int
    lora_A: str
    lora_B: str


def pair_tensors(header: Mapping[str, TensorEntry], config: AdapterConfig, base: BaseShapes) -> list[Pair]:
    """The checked pairs, in the order of the file.

    Raises AdapterRejected: corrupt_weights (nothing in it, or half a pair), unknown_module, unknown_layer,
    unsupported_feature, wrong_base, rank_mismatch.
    """
    if not header:
        raise AdapterRejected("corrupt_weights", "The weights hold no tensors; export the adapter again.")
    factors: dict[str, dict[str, str]] = {}
    for tensor, entry in header.items():
        module, factor = _parse(tensor)
        _check_module(tensor, module, base)
        _check_dtype(tensor, entry)
        factors.setdefault(module, {})[factor] = tensor
    return [_pair(module, found, header, config, base) for module, found in factors.items()]


def _parse(tensor: str) -> tuple[str, str]:
    """The module and "A" or "B" of a tensor's name."""
    for part, feature in _FOREIGN:
        if part in tensor:
            raise _refusal(
                "unsupported_feature", tensor, f"belongs to {feature}, which is not served; leave it out"
            )
    match = _KEY.fullmatch(tensor)
    if match is None:
        wanted = "base_model.model.<module>.lora_A.weight or .lora_B.weight, as PEFT writes it"
        raise _refusal("unknown_module", tensor, f"is no LoRA factor; its name must be {wanted}")
    return match[1], match[2]


def _check_module(tensor: str, module: str, base: BaseShapes) -> None:
    if module in base.linears:
        return
    if module in base.embeddings:
        raise _refusal(
            "unsupported_feature",
            tensor,
            "adapts an embedding or the output head; train on linear layers only",
        )
    layers = base.layers
    # The same module in another block means that only the number is wrong.
    if layers and _NUMBER.sub("*", module) in {_NUMBER.sub("*", known) for known in base.linears}:
        reason = f"is for layer {layer_of(module)}; base {base.name} has {layers[0]} to {layers[-1]}"
        raise _refusal("unknown_layer", tensor, f"{reason}: it was trained on another base")
    kinds = ", ".join(sorted({known.rpartition(".")[2] for known in base.linears}))
    raise _refusal("unknown_module", tensor, f"is for no linear layer of base {base.name}, which has {kinds}")


def _check_dtype(tensor: str, entry: TensorEntry) -> None:
    if entry.dtype not in _DTYPES:
        wanted = ", ".join(_DTYPES.values())
        raise _refusal("unsupported_feature", tensor, f"has dtype {entry.dtype}; save it as one of {wanted}")


def _pair(
    module: str,
    found: dict[str, str],
    header: Mapping[str, TensorEntry],
    config: AdapterConfig,
    base: BaseShapes,
) -> Pair:
    if len(found) < 2:
        present, absent = ("A", "B") if "A" in found else ("B", "A")
        reason = f"has no lora_{absent} beside it; the file is incomplete, export it again"
        raise _refusal("corrupt_weights", found[present], reason)
    rank = config.rank_of(module)
    d_out, d_in = base.linears[module]
    _check_shape(found["A"], header[found["A"]].shape, (rank, d_in), 0, base)
    _check_shape(found["B"], header[found["B"]].shape, (d_out, rank), 1, base)
    return Pair(module, rank, rank * (d_in + d_out), found["A"], found["B"])


def _check_shape(
    tensor: str, got: tuple[int, ...], want: tuple[int, int], rank_axis: int, base: BaseShapes
) -> None:
    if len(got) != 2 or got[1 - rank_axis] != want[1 - rank_axis]:
        reason = f"has shape {list(got)!r:.80} and base {base.name} needs {list(want)}"
        raise _refusal("wrong_base", tensor, f"{reason}; serve the base it was trained on")
    if got[rank_axis] != want[rank_axis]:
        reason = f"has rank {got[rank_axis]} and adapter_config.json says {want[rank_axis]}"
        raise _refusal("rank_mismatch", tensor, f"{reason}; correct r or rank_pattern, or export it again")


def _refusal(code: str, tensor: str, reason: str) -> AdapterRejected:
    return AdapterRejected(code, f"Tensor {tensor!r:.200} {reason}.", tensor[:200])
