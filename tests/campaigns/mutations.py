"""Seeded ways to damage a good adapter: bytes, headers, configs, shapes, types, values and files."""

import json
import os
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lora_compose.adapters.peft.files import CONFIG_FILE, WEIGHTS_FILE

IMPOSSIBLE = (
    OSError, ValueError, LookupError, AttributeError, TypeError, RuntimeError, struct.error, SafetensorError,
)  # fmt: skip
Mutation = Callable[[Random, Path], None]
Tensors = dict[str, torch.Tensor]

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 4, 16, 64, 65, 8.0, 8.5, 1e38, 1e-30, float("nan"), float("inf"), 10**400,
    "", "8", "all", "none", "lora_only", "pissa", "LORA", "IA3", [], ["q_proj"], ["lm_head"], [[0, 2]], {},
    {"q_proj": 4}, {"q_proj": "4"}, {".*": 1e38}, "x" * 100_000, "CAUSAL_LM", "../../etc", "\0",
)  # fmt: skip
FIELDS = (
    "r", "lora_alpha", "peft_type", "bias", "use_dora", "use_rslora", "modules_to_save", "init_lora_weights",
    "rank_pattern", "alpha_pattern", "target_modules", "exclude_modules", "layers_to_transform", "task_type",
    "fan_in_fan_out", "layer_replication", "lora_bias", "base_model_name_or_path", "trainable_token_indices",
    "target_parameters", "lora_dropout", "layers_pattern", "megatron_config", "auto_mapping", "unknown_field",
)  # fmt: skip
DTYPES = ("F64", "F32", "F16", "BF16", "I8", "U8", "I64", "BOOL", "F8_E4M3", "F7", "", 7, None)
NUMBERS = (float("nan"), float("inf"), -float("inf"), 3.4e38, 1e30, 1e-45, 0.0, 65504.0, 1e5)
CASTS = (torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.uint8, torch.int64, torch.bool)


def damage(random: Random, directory: Path) -> list[str]:
    """Apply one to three mutations, and return their names.

    Mutations that have become impossible are left out.
    """
    done = []
    chosen = random.choices(list(MUTATIONS), k=random.choice((1, 1, 1, 2, 3)))
    # Mutations that replace a file by something else come last. Reading such a file can fail or block.
    for name in sorted(chosen, key=lambda name: name.startswith("files")):
        with suppress(*IMPOSSIBLE):
            MUTATIONS[name](random, directory)
            done.append(name)
    return done


def _bytes(file: str, change: Callable[[Random, bytearray], object]) -> Mutation:
    def mutation(random: Random, directory: Path) -> None:
        data = bytearray((directory / file).read_bytes())
        changed = change(random, data)
        (directory / file).write_bytes(changed if isinstance(changed, bytes) else data)

    return mutation


def _flip(random: Random, data: bytearray) -> None:
    for _ in range(random.choice((1, 1, 3, 50))):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _flip_head(random: Random, data: bytearray) -> None:
    data[random.randrange(min(len(data), 3000))] ^= 1 << random.randrange(8)


def _cut(random: Random, data: bytearray) -> None:
    del data[random.randrange(len(data)) :]


def _insert(random: Random, data: bytearray) -> None:
    at = random.randrange(len(data))
    data[at:at] = random.randbytes(random.choice((1, 4, 64, 4096)))


def _swap(random: Random, data: bytearray) -> None:
    size = random.choice((1, 8, 512))
    one, other = (random.randrange(max(1, len(data) - size)) for _ in range(2))
    data[one : one + size], data[other : other + size] = data[other : other + size], data[one : one + size]


def _zero(random: Random, data: bytearray) -> None:
    at, size = random.randrange(len(data)), random.choice((1, 8, 4096))
    data[at : at + size] = bytes(len(data[at : at + size]))


def _length(random: Random, data: bytearray) -> None:
    struct.pack_into(
        "<Q", data, 0, random.choice((0, 1, 7, 2**31, 2**62, 2**64 - 1, random.randrange(10**6)))
    )


def _header(change: Callable[[Random, dict[str, Any]], object]) -> Mutation:
    def changed(random: Random, data: bytearray) -> bytes:
        (length,) = struct.unpack_from("<Q", data)
        found = json.loads(data[8 : 8 + length])
        change(random, found)
        text = json.dumps(found).encode()
        return struct.pack("<Q", len(text)) + text + bytes(data[8 + length :])

    return _bytes(WEIGHTS_FILE, changed)


def _entry(random: Random, header: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = header[random.choice([key for key in header if key != "__metadata__"])]
    return found


def _offsets(random: Random, header: dict[str, Any]) -> None:
    offsets = _entry(random, header)["data_offsets"]
    offsets[random.randrange(2)] += random.choice((-(2**40), -4, -1, 1, 4, 2**40, 2**63))


def _shape(random: Random, header: dict[str, Any]) -> None:
    entry = _entry(random, header)
    shape = entry["shape"]
    entry["shape"] = random.choice((
        [],
        [0],
        shape[::-1],
        [*shape, 1],
        [-1, *shape[1:]],
        [2**33, 2**33],
        [shape[0] * shape[1]],
        [1.5],
        "x",
    ))


def _dtype(random: Random, header: dict[str, Any]) -> None:
    _entry(random, header)["dtype"] = random.choice(DTYPES)


def _key(random: Random, header: dict[str, Any]) -> None:
    key = random.choice([key for key in header if key != "__metadata__"])
    new = random.choice((
        key.upper(),
        key + ".weight",
        key.replace("lora_A", "lora_B"),
        key.replace("layers.0", "layers.99"),
        key.replace("q_proj", "w_proj"),
        key.removeprefix("base_model.model."),
        "hello",
        "",
        "\0",
        "x" * 10_000,
        key.replace("layers.1", "layers.01"),
        key.replace(".lora_A", ".default.lora_A"),
    ))
    header[new] = header.pop(key)


def _metadata(random: Random, header: dict[str, Any]) -> None:
    header["__metadata__"] = random.choice((
        [],
        7,
        None,
        {"format": 7},
        {"format": "pt", "x": "y" * 10**6},
        {"a": {}},
    ))


def _drop_entry(random: Random, header: dict[str, Any]) -> None:
    header.pop(random.choice([key for key in header if key != "__metadata__"]))


def _config(random: Random, directory: Path) -> None:
    path = directory / CONFIG_FILE
    found = json.loads(path.read_text())
    field = random.choice((*FIELDS, *found))
    if random.random() < 0.1:
        found.pop(field, None)
    else:
        found[field] = random.choice(VALUES)
    path.write_text(json.dumps(found))


def _config_text(random: Random, data: bytearray) -> bytes:
    text = bytes(data)
    return random.choice((
        b"",
        b"[]",
        b"null",
        b"{}",
        b"\xef\xbb\xbf" + text,
        text + text,
        text[:-1],
        b"[" * 100_000,
        b"{" + text,
        text.replace(b'"r"', b'"r": 4, "r"'),
        text.decode().encode("utf-16"),
        text + b"\0",
        b" " * (2 << 20) + text,
    ))


def _tensors(change: Callable[[Random, Tensors, str], object]) -> Mutation:
    def mutation(random: Random, directory: Path) -> None:
        given = load_file(directory / WEIGHTS_FILE)
        change(random, given, random.choice(sorted(given)))
        save_file({key: tensor.contiguous() for key, tensor in given.items()}, directory / WEIGHTS_FILE)

    return mutation


def _number(random: Random, given: Tensors, key: str) -> None:
    given[key].view(-1)[random.randrange(given[key].numel())] = random.choice(NUMBERS)


def _scale(random: Random, given: Tensors, key: str) -> None:
    given[key] = given[key] * random.choice((0.0, -1.0, 1e3, 1e20, 1e38))


def _cast(random: Random, given: Tensors, key: str) -> None:
    dtype = random.choice(CASTS)
    for name in [key] if random.random() < 0.5 else list(given):
        given[name] = given[name].to(dtype)


def _reshape(random: Random, given: Tensors, key: str) -> None:
    tensor = given[key]
    given[key] = random.choice((
        tensor.T,
        tensor[:-1],
        tensor[:, :-1],
        tensor[:0],
        tensor.reshape(-1),
        tensor[None],
        torch.cat([tensor] * 2),
        torch.cat([tensor] * 2, 1),
        torch.tensor(1.0),
        tensor[: len(tensor) // 2],
    ))


def _drop(_: Random, given: Tensors, key: str) -> None:
    del given[key]


def _drop_layer(_: Random, given: Tensors, key: str) -> None:
    layer = key.partition("layers.")[2].partition(".")[0]
    for name in [name for name in given if f"layers.{layer}." in name]:
        del given[name]


def _add(random: Random, given: Tensors, key: str) -> None:
    name = random.choice((
        "hello",
        key + "2",
        key.replace("lora_A", "lora_embedding_A"),
        "base_model.model.lm_head.weight",
        key.replace("q_proj", "w_proj"),
        key.replace("lora_A", "lora_magnitude_vector"),
    ))
    given[name] = torch.zeros(4, 4)


def _file(change: Callable[[Random, Path], object]) -> Mutation:
    def mutation(random: Random, directory: Path) -> None:
        path = directory / random.choice((CONFIG_FILE, WEIGHTS_FILE))
        if path.is_symlink() or not path.is_file():
            raise FileNotFoundError
        change(random, path)

    return mutation


def _missing(_: Random, path: Path) -> None:
    path.unlink()


def _fifo(_: Random, path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _link(random: Random, path: Path) -> None:
    path.unlink()
    path.symlink_to(random.choice(("/etc/passwd", "/dev/zero", "nothing", str(path), "/proc/self/mem")))


def _folder(_: Random, path: Path) -> None:
    path.unlink()
    path.mkdir()


def _sparse(random: Random, path: Path) -> None:
    os.truncate(path, random.choice((0, 7, 8, 2 << 20, 3 << 30, 10 << 30)))


def _pickle(_: Random, path: Path) -> None:
    path.rename(path.with_name("adapter_model.bin"))


MUTATIONS: Mapping[str, Mutation] = {
    "bytes: flip": _bytes(WEIGHTS_FILE, _flip),
    "bytes: flip in the header": _bytes(WEIGHTS_FILE, _flip_head),
    "bytes: cut": _bytes(WEIGHTS_FILE, _cut),
    "bytes: insert": _bytes(WEIGHTS_FILE, _insert),
    "bytes: swap": _bytes(WEIGHTS_FILE, _swap),
    "bytes: zero": _bytes(WEIGHTS_FILE, _zero),
    "bytes: length": _bytes(WEIGHTS_FILE, _length),
    "header: offsets": _header(_offsets),
    "header: shape": _header(_shape),
    "header: dtype": _header(_dtype),
    "header: key": _header(_key),
    "header: metadata": _header(_metadata),
    "header: entry gone": _header(_drop_entry),
    "config: field": _config,
    "config: another field": _config,
    "config: text": _bytes(CONFIG_FILE, _config_text),
    "config: flip": _bytes(CONFIG_FILE, _flip),
    "config: cut": _bytes(CONFIG_FILE, _cut),
    "values: one number": _tensors(_number),
    "values: scale": _tensors(_scale),
    "types: cast": _tensors(_cast),
    "shapes: reshape": _tensors(_reshape),
    "keys: tensor gone": _tensors(_drop),
    "keys: layer gone": _tensors(_drop_layer),
    "keys: another tensor": _tensors(_add),
    "files: missing": _file(_missing),
    "files: FIFO": _file(_fifo),
    "files: link": _file(_link),
    "files: folder": _file(_folder),
    "files: another size": _file(_sparse),
    "files: pickle": _file(_pickle),
}
