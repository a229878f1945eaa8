"""The fingerprint of a base model. It identifies the weights, and not the files that hold them.

It is the sha256 of every tensor's name, dtype and shape, of the tensors' bytes in the order of their names,
and of the few values of the config that say how the numbers are used (see `_use`). So the same weights have
the same fingerprint in another directory, under another name, or divided into other safetensors files. The
tokenizer, the other values of the config and the metadata in the files do not count. Another dtype or
quantization of the same weights is another base, because its numbers differ.

Up to `WHOLE_BYTES` all bytes are read. Of a larger model, evenly spaced parts of each tensor are read: 16
KiB each, `SPANS` of them and one more for each tensor, so about 64 MiB. A change of a few numbers in a large
model may then be missed. Fine-tuning changes nearly all of them.
"""

import hashlib
import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

WHOLE_BYTES = 256 << 20
SPANS = 4096
SPAN_BYTES = 16 << 10
_OTHER_FORMATS = ("*.bin", "*.gguf", "*.pt", "*.pth")
_INDEX = "model.safetensors.index.json"
_MAX_HEADER_BYTES = 100_000_000
_SAMPLE_BYTES = 1 << 20


@dataclass(frozen=True)
class Piece:
    """A tensor, or a whole file of another format: `size` bytes of `file` from `start` on."""

    name: str
    """Name, dtype and shape of a tensor."""
    file: Path
    start: int
    size: int


def fingerprint(model_dir: Path) -> str:
    """The fingerprint as 64 hex digits. Raises OSError or ValueError if the files are not a checkpoint."""
    pieces = sorted(_pieces(model_dir), key=lambda piece: piece.name)
    digest = hashlib.sha256(json.dumps(_use(model_dir)).encode())
    for piece in pieces:
        digest.update(f"{piece.name}\0{piece.size}\0".encode())
    for data in _read(pieces):
        digest.update(data)
    return digest.hexdigest()


def _use(model_dir: Path) -> list[object]:
    """Architecture, heads, base of the rotary embedding. With other values the numbers mean something else.

    Other versions of transformers write the same values at other places, or leave defaults out."""
    config = json.loads((model_dir / "config.json").read_bytes())
    config = config.get("text_config") or config
    heads = config.get("num_attention_heads")
    rotary = config.get("rope_theta") or (config.get("rope_parameters") or {}).get("rope_theta")
    return [
        config.get("model_type"),
        heads,
        config.get("num_key_value_heads") or heads,
        float(rotary) if isinstance(rotary, int | float) else 10000.0,
    ]


def _pieces(model_dir: Path) -> list[Piece]:
    files = _safetensors_files(model_dir)
    if files:
        return [piece for file in files for piece in _tensors(file)]
    # The names of these files do not count, only their order.
    others = sorted(path for pattern in _OTHER_FORMATS for path in model_dir.glob(pattern))
    if not others:  # a format that is not known here
        others = [model_dir / "config.json"]
    return [Piece(f"{place:09}", path, 0, path.stat().st_size) for place, path in enumerate(others)]


def _safetensors_files(model_dir: Path) -> list[Path]:
    """The files of the index if there is one, as vLLM reads them, else all in the directory."""
    index = model_dir / _INDEX
    if index.is_file():
        listed = {*json.loads(index.read_text())["weight_map"].values()}
        return [model_dir / name for name in sorted(listed)]
    return sorted(model_dir.glob("*.safetensors"))


def _tensors(path: Path) -> Iterator[Piece]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
        if length > _MAX_HEADER_BYTES:
            raise ValueError(f"{path.name} is not a safetensors file")
        header = json.loads(file.read(length))
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            what = f"{name}\0{entry['dtype']}\0{entry['shape']}"
            yield Piece(what, path, 8 + length + begin, end - begin)


def _read(pieces: Sequence[Piece]) -> Iterator[bytes]:
    """All bytes of the pieces, or evenly spaced parts of each if they are large."""
    total = sum(piece.size for piece in pieces)
    step = SPAN_BYTES if total <= WHOLE_BYTES else max(SPAN_BYTES, total // SPANS)
    for piece in pieces:
        with piece.file.open("rb", buffering=0) as file:
            for place in range(0, piece.size, step):
                file.seek(piece.start + place)
                yield file.read(min(SPAN_BYTES, piece.size - place))


def older_fingerprint(model_dir: Path) -> str:
    """The fingerprint that 0.1.0 wrote into lineages, so that its versions are recognised.

    Hex sha256 of config.json and of the name, size, header and first MiB of each safetensors file."""
    digest = hashlib.sha256((model_dir / "config.json").read_bytes())
    for path in sorted(model_dir.glob("*.safetensors")):
        with path.open("rb") as file:
            prefix = file.read(8)
            (length,) = struct.unpack("<Q", prefix.ljust(8, b"\0"))
            sample = file.read(min(length, _MAX_HEADER_BYTES) + _SAMPLE_BYTES)
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        digest.update(prefix + sample)
    return digest.hexdigest()
