"""Weights files that are damaged or hostile. Admission refuses all of them with one code."""

import io
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save

from lora_compose.adapters.admission.admit import AdmissionLimits, admit
from lora_compose.adapters.admission.base_model import BaseShapes
from lora_compose.adapters.admission.tensors import MAX_HEADER_BYTES, check_header, read_header
from lora_compose.adapters.errors import AdapterRejected
from tests.adapters.adapter_files import factors, key, write_adapter, write_base

LIMITS = AdmissionLimits(max_lora_rank=16, dtype=torch.float32, max_bytes=1 << 20)
GOOD = save(factors())
WEIGHTS = "adapter_model.safetensors"
ENTRY: dict[str, Any] = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
ACCEPTED = "accepted"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseShapes:
    return BaseShapes.of(write_base(tmp_path_factory.mktemp("base")), "tiny")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapter(tmp_path_factory.mktemp("adapter"))


def outcome_before_copying(directory: Path, data: bytes) -> str:
    """ACCEPTED, or the error code for the weights file `data` before it is copied."""
    file = io.BytesIO(data)
    try:
        check_header(file, LIMITS.max_bytes, directory)
    except AdapterRejected as error:
        return error.code
    finally:
        assert sorted(path.name for path in directory.iterdir()) == ["adapter_config.json", WEIGHTS]
    assert file.tell() == 0
    return ACCEPTED


def outcome(directory: Path, data: bytes, base: BaseShapes) -> str:
    """ACCEPTED, or the error code for the adapter with the weights file `data`."""
    (directory / WEIGHTS).write_bytes(data)
    try:
        admit(directory, base, LIMITS)
    except AdapterRejected as error:
        return error.code
    return ACCEPTED


def built(header: Any, data: bytes = bytes(8)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def twice(second: dict[str, Any], data: bytes = bytes(8)) -> bytes:
    """A file whose header has two entries with one name."""
    return built(b'{"a":%b,"a":%b}' % (json.dumps(ENTRY).encode(), json.dumps(second).encode()), data)


def edited(**changes: Any) -> bytes:
    """The good file, with `changes` to the entry of its first tensor."""
    (length,) = struct.unpack_from("<Q", GOOD)
    header = json.loads(GOOD[8 : 8 + length])
    header[key(0, "self_attn.q_proj", "A")] |= changes
    return built(header, GOOD[8 + length :])


def test_the_good_file_is_accepted(directory: Path, base: BaseShapes) -> None:
    assert outcome(directory, GOOD, base) == outcome(directory, edited(), base) == ACCEPTED


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(GOOD[:7], id="shorter than a header"),
        pytest.param(GOOD[: len(GOOD) // 2], id="cut short"),
        pytest.param(GOOD + b"x", id="trailing byte"),
        pytest.param(struct.pack("<Q", 2**62) + GOOD[8:], id="header beyond the file"),
        pytest.param(struct.pack("<Q", 2**64 - 1) + GOOD[8:], id="header length that overflows"),
        pytest.param(struct.pack("<Q", MAX_HEADER_BYTES + 1) + GOOD[8:], id="header over the limit"),
        pytest.param(built(b"not json"), id="not JSON"),
        pytest.param(built(b"[]"), id="not an object"),
        pytest.param(built({"a": ENTRY, "b": ENTRY}), id="overlap"),
        pytest.param(built({"a": ENTRY | {"data_offsets": [8, 16]}}, bytes(16)), id="hole"),
        pytest.param(built({"a": ENTRY | {"data_offsets": [8, 0]}}), id="end before begin"),
        pytest.param(built({"a": ENTRY | {"shape": [3]}}), id="wrong size"),
        pytest.param(edited(shape=[4, 33]), id="wrong size of one tensor"),
        pytest.param(
            built({"a": ENTRY | {"shape": [2**40, 2**40, 0], "data_offsets": [0, 0]}}, b""), id="overflow"
        ),
        pytest.param(built({"a": ENTRY | {"shape": [2.0]}}), id="float in the shape"),
        pytest.param(built({"a": ENTRY | {"shape": [True, 2]}}), id="bool in the shape"),
        pytest.param(built({"a": ENTRY | {"shape": [-2]}}), id="negative shape"),
        pytest.param(built({"a": ENTRY | {"dtype": "F99"}}), id="unknown dtype"),
        pytest.param(built({"a": {"dtype": "F32", "shape": [2]}}), id="no offsets"),
        pytest.param(built({"a": ENTRY, "__metadata__": {"format": 1}}), id="metadata that is no text"),
        pytest.param(built(b"\xef\xbb\xbf" + json.dumps({"a": ENTRY}).encode()), id="byte order mark"),
        pytest.param(built(b'{"\xff":1}'), id="not UTF-8"),
        pytest.param(built(b'{"a":' * 100_000), id="deep nesting"),
        pytest.param(built(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), id="deep nesting, closed"),
        pytest.param(twice(ENTRY | {"data_offsets": [8, 16]}, bytes(16)), id="two entries of one name"),
    ],
)
def test_a_damaged_file_is_refused(directory: Path, base: BaseShapes, data: bytes) -> None:
    assert outcome(directory, data, base) == "corrupt_weights"
    assert outcome_before_copying(directory, data) == "corrupt_weights"


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """The good file with some bytes of its header replaced, inserted or cut."""
    (length,) = struct.unpack_from("<Q", GOOD)
    data = bytearray(GOOD)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, 8 + length))
        patch = draw(
            st.sampled_from([b"", b"0", b"-0", b"1", b"9", b"]", b"[", b'"', b" ", b",", b"\xff", b"."])
        )
        data[at : at + draw(st.integers(0, 2))] = patch
    if draw(st.booleans()):
        data[:8] = struct.pack("<Q", length + len(data) - len(GOOD))
    return bytes(data)


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=mutated())
def test_a_mutated_file_is_refused_or_is_one_that_the_library_loads(
    directory: Path, base: BaseShapes, data: bytes
) -> None:
    found = outcome(directory, data, base)
    assert outcome_before_copying(directory, data) in (ACCEPTED, found)
    if found == ACCEPTED:
        assert load_file(directory / WEIGHTS).keys() == factors().keys()


@settings(max_examples=200, deadline=None)
@given(shapes=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), max_size=5))
def test_every_file_the_library_writes_is_read_with_its_shapes(
    directory: Path, shapes: list[tuple[int, int]]
) -> None:
    tensors = {f"t{i}": torch.zeros(shape) for i, shape in enumerate(shapes)}
    (directory / WEIGHTS).write_bytes(save(tensors))
    header = read_header(directory / WEIGHTS, max_bytes=1 << 20)
    assert {name: entry.shape for name, entry in header.items()} == {
        n: tuple(t.shape) for n, t in tensors.items()
    }


@pytest.mark.parametrize("second", [ENTRY, ENTRY | {"shape": [1, 2]}])
def test_of_two_entries_for_the_same_data_the_one_that_is_checked_is_the_one_that_is_loaded(
    directory: Path, second: dict[str, Any]
) -> None:
    (directory / WEIGHTS).write_bytes(twice(second))
    header = read_header(directory / WEIGHTS, max_bytes=1 << 20)
    loaded = load_file(directory / WEIGHTS)
    assert {name: entry.shape for name, entry in header.items()} == {
        n: tuple(t.shape) for n, t in loaded.items()
    }


def test_a_file_over_the_size_limit_is_refused_before_its_header_is_read(tmp_path: Path) -> None:
    (tmp_path / WEIGHTS).write_bytes(bytes(101))
    with pytest.raises(AdapterRejected) as refusal:
        read_header(tmp_path / WEIGHTS, max_bytes=100)
    assert refusal.value.code == "weights_too_large"
    assert "101" in refusal.value.message
    assert "100" in refusal.value.message
