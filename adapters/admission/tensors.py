"""Pairs the tensors of an adapter and checks their names, dtypes and shapes against the base.

The safetensors library reads only the header and no weights, so a file for another base is refused quickly.
Every error names the tensor, the value that it has and the value that it should have.
"""

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import BinaryIO, NamedTuple

from safetensors import SafetensorError, safe_open

from lora_compose.adapters.admission.base_model import BaseShapes, layer_of
from lora_compose.adapters.admission.foreign_tensors import other_prefix, what_tensor_is
from lora_compose.adapters.errors import AdapterRejected, Code
from lora_compose.adapters.peft.config import AdapterConfig
from lora_compose.adapters.peft.contents import HEAD_BYTES, what_weights_are
from lora_compose.adapters.peft.tensor_names import Part, TensorName, parse_name, several_adapters
from lora_compose.adapters.safe_files import open_regular

MAX_HEADER_BYTES = 16 << 20
"""Enough for about a hundred thousand tensors. The library itself reads headers of up to 100 MB."""
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
_NUMBER = re.compile(r"(?<=\.)[0-9]+(?=\.)")

# Tensors of PEFT features that are not plain LoRA: (part of the name, feature).
_OTHER_FEATURES = (
    ("lora_velora", "VeLoRA"),
    ("lora_monteclora", "MonteCLoRA"),
    ("lora_diag", "KaSA"),
    ("modules_to_save", "modules_to_save"),
    (".base_layer.", "a copy of the base's own weights"),
    ("trainable_tokens", "trainable_token_indices"),
)


class TensorEntry(NamedTuple):
    """The dtype and shape of a tensor in the header."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class TensorPair:
    """The tensor names of a module. The shapes of the factors are (rank, d_in) and (d_out, rank).

    For an embedding of V tokens in d dimensions they are (rank, V) and (d, rank), as PEFT stores them."""

    module: str
    rank: int
    parameters: int
    lora_A: str
    lora_B: str
    bias: str | None = None
    """The bias of lora_bias, (d_out,)."""
    magnitude: str | None = None
    """The magnitude of DoRA, (d_out,)."""


def read_header(path: Path, max_bytes: int) -> dict[str, TensorEntry]:
    """The tensors of a safetensors file, in the order of their data.

    The sizes of the file and of its header are checked before the library maps the file. Raises
    AdapterRejected not_a_regular_file, missing_weights, weights_too_large, corrupt_weights."""
    with open_regular(path, missing=Code.MISSING_WEIGHTS) as file:
        _check_sizes(file, max_bytes)
    try:
        with safe_open(path, framework="pt") as weights:
            slices = {name: weights.get_slice(name) for name in weights.offset_keys()}
            return {name: TensorEntry(s.get_dtype(), tuple(s.get_shape())) for name, s in slices.items()}
    except SafetensorError as error:
        raise _corrupt(f"{error!s:.200}") from error


def check_header(weights: BinaryIO, max_bytes: int, directory: Path) -> None:
    """Check an open file like `read_header`, before gigabytes of it are copied. Rewinds the file.

    The library reads a sparse file of the same size in `directory`, which has only the header. The file
    itself is not mapped: if its owner truncated it, access to the mapping would kill this process."""
    length = _check_sizes(weights, max_bytes)
    with NamedTemporaryFile(dir=directory) as sparse:
        size = weights.seek(0, 2)
        weights.seek(0)
        sparse.write(weights.read(8 + length))
        sparse.truncate(size)
        sparse.flush()
        read_header(Path(sparse.name), max_bytes)
    weights.seek(0)


def _check_sizes(file: BinaryIO, max_bytes: int) -> int:
    """Returns the length of the header."""
    size = file.seek(0, 2)
    if size > max_bytes:
        raise AdapterRejected(
            Code.WEIGHTS_TOO_LARGE,
            f"adapter_model.safetensors has {size} bytes, but at most {max_bytes} are accepted.",
        )
    file.seek(0)
    head = file.read(HEAD_BYTES)
    if head[8:9] != b"{" and (what := what_weights_are(head)) is not None:
        message = f"adapter_model.safetensors {what}."
        raise AdapterRejected(Code.CORRUPT_WEIGHTS, message, "adapter_model.safetensors")
    if len(head) < 8:
        raise _corrupt(f"it has {size} bytes, too few for a header")
    length: int = struct.unpack("<Q", head[:8])[0]
    if length > MAX_HEADER_BYTES:
        raise _corrupt(f"the length of its header is {length} bytes, but at most {MAX_HEADER_BYTES} are read")
    return length


def _corrupt(reason: str) -> AdapterRejected:
    message = (
        f"adapter_model.safetensors is damaged or not a safetensors file: {reason}. Save or upload it again."
    )
    return AdapterRejected(Code.CORRUPT_WEIGHTS, message, "adapter_model.safetensors")


def pair_tensors(
    header: Mapping[str, TensorEntry], config: AdapterConfig, base: BaseShapes
) -> list[TensorPair]:
    """The checked pairs, in the order of the file.

    Raises AdapterRejected: corrupt_weights (no tensor, or a missing factor), unknown_module, unknown_layer,
    unsupported_feature, wrong_base, rank_mismatch.
    """
    if not header:
        raise AdapterRejected(
            Code.CORRUPT_WEIGHTS, "adapter_model.safetensors contains no tensors. Export the adapter again."
        )
    parts: dict[str, dict[Part, str]] = {}
    adapters: set[str | None] = set()
    for tensor, entry in header.items():
        name = _parse(tensor)
        _check_module(tensor, name, base)
        _check_dtype(tensor, entry)
        adapters.add(name.adapter)
        parts.setdefault(name.module, {})[name.part] = tensor
    if reason := several_adapters(adapters):
        message = f"adapter_model.safetensors: {reason}."
        raise AdapterRejected(Code.CORRUPT_WEIGHTS, message, "adapter_model.safetensors")
    return [_pair(module, found, header, config, base) for module, found in parts.items()]


def _parse(tensor: str) -> TensorName:
    """The module and the part, such as "A", from the name of a tensor."""
    for part, feature in _OTHER_FEATURES:
        if part in tensor:
            raise _refusal(
                Code.UNSUPPORTED_FEATURE,
                tensor,
                f"belongs to {feature}, which is not supported. Save the adapter without it",
            )
    name = parse_name(tensor)
    if name is None and tensor.endswith(".bias") and ".lora_" not in tensor:
        reason = (
            "is a trained bias of the base, which would replace the base's own. Train with "
            'bias="none", or with lora_bias=true for biases of the adapter itself'
        )
        raise _refusal(Code.UNSUPPORTED_FEATURE, tensor, reason)
    if name is None:
        raise _refusal(Code.UNKNOWN_MODULE, tensor, what_tensor_is(tensor))
    return name


def _check_module(tensor: str, name: TensorName, base: BaseShapes) -> None:
    module, is_embedding = name.module, name.module in base.embeddings
    if is_embedding and name.part in ("bias", "magnitude"):
        reason = "belongs to an embedding, whose DoRA is not served. Train without use_dora"
        raise _refusal(Code.UNSUPPORTED_FEATURE, tensor, reason)
    if module in base.modules:
        if name.embedding == is_embedding:
            return
        own, of_base = ("an embedding", "a linear layer")[:: 1 if name.embedding else -1]
        reason = f"is a factor of {own}, but {module} of the base {base.name} is {of_base}"
        raise _refusal(Code.UNKNOWN_MODULE, tensor, reason)
    layers = base.layers
    # If the base has this module in another block, only the layer number is wrong.
    if layers and _NUMBER.sub("*", module) in {_NUMBER.sub("*", known) for known in base.linears}:
        reason = f"is for {layer_of(module)}, but the base {base.name} has {layers[0]} to {layers[-1]}"
        raise _refusal(Code.UNKNOWN_LAYER, tensor, f"{reason}. The adapter was trained on another base")
    kinds = ", ".join(sorted({known.rpartition(".")[2] for known in base.modules}))
    reason = f"is not for a layer of the base {base.name}, which has {kinds}"
    raise _refusal(Code.UNKNOWN_MODULE, tensor, reason + other_prefix(module, base))


def _check_dtype(tensor: str, entry: TensorEntry) -> None:
    if entry.dtype not in _DTYPES:
        wanted = ", ".join(_DTYPES.values())
        if entry.dtype.startswith("F8"):
            reason = (
                f"has dtype {entry.dtype}, and the file does not say by which scale its values must be "
                f"multiplied. Multiply them if there is a scale, and save the product as one of {wanted}"
            )
            raise _refusal(Code.UNSUPPORTED_FEATURE, tensor, reason)
        raise _refusal(
            Code.UNSUPPORTED_FEATURE, tensor, f"has dtype {entry.dtype}. Save it as one of {wanted}"
        )


def _pair(
    module: str,
    found: dict[Part, str],
    header: Mapping[str, TensorEntry],
    config: AdapterConfig,
    base: BaseShapes,
) -> TensorPair:
    factors = [part for part in ("A", "B") if part in found]
    if len(factors) < 2:
        tensor = next(iter(found.values()))
        absent = "B" if factors == ["A"] else "A"
        reason = f"has no matching lora_{absent}. The file is incomplete. Export the adapter again"
        raise _refusal(Code.CORRUPT_WEIGHTS, tensor, reason)
    rank = config.rank_of(module)
    d_out, d_in = base.modules[module]
    _check_shape(found["A"], header[found["A"]].shape, (rank, d_in), 0, base)
    _check_shape(found["B"], header[found["B"]].shape, (d_out, rank), 1, base)
    vectors = _vectors(found, header, config, d_out)
    parameters = rank * (d_in + d_out) + d_out * sum(name is not None for name in vectors)
    return TensorPair(module, rank, parameters, found["A"], found["B"], *vectors)


def _vectors(
    found: dict[Part, str], header: Mapping[str, TensorEntry], config: AdapterConfig, d_out: int
) -> tuple[str | None, str | None]:
    """The tensors of the bias and the magnitude. PEFT ignores those that the config does not have."""
    bias, magnitude = found.get("bias"), found.get("magnitude")
    for tensor, field, is_on in (
        (bias, "lora_bias", config.lora_bias),
        (magnitude, "use_dora", config.use_dora),
    ):
        if tensor is not None and not is_on:
            reason = f"is there, but adapter_config.json says {field}=false. Correct the config"
            raise _refusal(Code.BAD_ADAPTER_CONFIG, tensor, reason)
        if tensor is not None and header[tensor].shape != (d_out,):
            reason = f"has shape {list(header[tensor].shape)!r:.80}, but the base needs {[d_out]}"
            raise _refusal(
                Code.WRONG_BASE, tensor, f"{reason}. Serve the base that the adapter was trained on"
            )
    if config.use_dora and magnitude is None:
        reason = "has no lora_magnitude_vector beside it, but adapter_config.json says use_dora=true"
        raise _refusal(Code.CORRUPT_WEIGHTS, found["A"], f"{reason}. Export the adapter again")
    return bias, magnitude


def _check_shape(
    tensor: str, got: tuple[int, ...], want: tuple[int, int], rank_axis: int, base: BaseShapes
) -> None:
    if len(got) != 2 or got[1 - rank_axis] != want[1 - rank_axis]:
        reason = f"has shape {list(got)!r:.80}, but the base {base.name} needs {list(want)}"
        raise _refusal(Code.WRONG_BASE, tensor, f"{reason}. Serve the base that the adapter was trained on")
    if got[rank_axis] != want[rank_axis]:
        reason = f"has rank {got[rank_axis]}, but adapter_config.json says {want[rank_axis]}"
        raise _refusal(
            Code.RANK_MISMATCH, tensor, f"{reason}. Correct r or rank_pattern, or export the adapter again"
        )


def _refusal(code: Code, tensor: str, reason: str) -> AdapterRejected:
    return AdapterRejected(code, f"Tensor {tensor!r:.200} {reason}.", tensor[:200])
