"""Checks the header of a safetensors file without mapping it or trusting one number in it.

Accepts what the `safetensors` library accepts, short of headers over MAX_HEADER_BYTES, keys given twice and
fields nobody knows; a test holds the two together. The layout: 8 bytes little-endian header length, one JSON
object, the data.
"""

import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

from adapters.errors import AdapterRejected
from adapters.strict_json import NotStrictJson, parse_object

MAX_HEADER_BYTES = 16 << 20
"""About a hundred thousand tensors; the library itself allows 100 MB."""
_MAX_DEPTH = 4
_MAX_COUNT = 1 << 64

# Sub-byte types of the library (F4, F6_*) are left out: no adapter has them.
BITS: dict[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


@dataclass(frozen=True)
class TensorEntry:
    """One tensor as the header declares it; `begin` and `end` are byte offsets into the data."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(file: BinaryIO, max_bytes: int) -> dict[str, TensorEntry]:
    """The tensors of the open safetensors `file` in the order of their data, which has no gap or overlap.

    Raises AdapterRejected `corrupt_weights`, or `weights_too_large` above `max_bytes`.
    """
    size = file.seek(0, 2)
    if size > max_bytes:
        raise AdapterRejected(
            "weights_too_large", f"The weights hold {size} bytes; at most {max_bytes} are accepted."
        )
    file.seek(0)
    length = _header_length(file.read(8), size)
    try:
        header = parse_object(file.read(length), _MAX_DEPTH)
    except NotStrictJson as error:
        raise _corrupt(f"its header cannot be read: {error}") from error
    _check_metadata(header.pop("__metadata__", None))
    entries = {name: _entry(name, fields) for name, fields in header.items()}
    ordered = dict(sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)))
    _check_layout(ordered, size - 8 - length)
    return ordered


def _header_length(prefix: bytes, size: int) -> int:
    if len(prefix) < 8:
        raise _corrupt(f"it is {size} bytes long, too short for a header")
    length: int = struct.unpack("<Q", prefix)[0]
    if length > MAX_HEADER_BYTES:
        raise _corrupt(f"its header claims {length} bytes; at most {MAX_HEADER_BYTES} are read")
    if length > size - 8:
        raise _corrupt(f"its header claims {length} bytes and only {size - 8} follow; the file is cut short")
    return length


def _check_metadata(metadata: object) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _corrupt("its __metadata__ must map names to strings")


def _entry(name: str, fields: Any) -> TensorEntry:
    if not isinstance(fields, dict) or fields.keys() != {"dtype", "shape", "data_offsets"}:
        raise _corrupt(f"tensor {name!r:.200} must have dtype, shape and data_offsets and nothing else")
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise _corrupt(f"tensor {name!r:.200} has the unknown dtype {dtype!r:.40}")
    if not _is_counts(shape) or not _is_counts(offsets) or len(offsets) != 2:
        raise _corrupt(f"tensor {name!r:.200} has a malformed shape or data_offsets")
    entry = TensorEntry(dtype, tuple(shape), offsets[0], offsets[1])
    if _bytes(entry) != entry.end - entry.begin:
        size = entry.end - entry.begin
        raise _corrupt(f"tensor {name!r:.200} is {dtype} {list(shape)!r:.80} and has {size} bytes of data")
    return entry


def _is_counts(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < _MAX_COUNT for item in value)


def _bytes(entry: TensorEntry) -> int | None:
    """Size of the tensor's data, None where counting its elements overflows 64 bits."""
    count = 1
    for dimension in entry.shape:
        count *= dimension
        if count >= _MAX_COUNT:
            return None
    return count * BITS[entry.dtype] // 8


def _check_layout(entries: dict[str, TensorEntry], size: int) -> None:
    position = 0
    for name, entry in entries.items():
        if entry.begin != position:
            raise _corrupt(
                f"tensor {name!r:.200} begins at byte {entry.begin} of the data, not at {position}"
            )
        position = entry.end
    if position != size:
        raise _corrupt(f"its tensors need {position} bytes of data and the file has {size}")


def _corrupt(reason: str) -> AdapterRejected:
    message = (
        f"adapter_model.safetensors is damaged or no safetensors file: {reason}. Save or upload it again."
    )
    return AdapterRejected("corrupt_weights", message, "adapter_model.safetensors")
