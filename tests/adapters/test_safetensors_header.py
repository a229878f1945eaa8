import io
import json
import struct
from typing import Any

import numpy as np
import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from adapters.errors import AdapterRejected
from adapters.safetensors_header import MAX_HEADER_BYTES, read_header

GOOD = save({"a": np.ones((2, 3), np.float32), "b": np.ones((4,), np.float16), "c": np.ones((0, 5), np.int8)})
ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def built(header: Any, data: bytes = bytes(8)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def accepted(data: bytes) -> bool:
    try:
        read_header(io.BytesIO(data), max_bytes=1 << 20)
    except AdapterRejected as error:
        return error.code != "corrupt_weights"
    return True


def library_accepts(data: bytes) -> bool:
    try:
        safetensors.deserialize(data)  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError:
        return False
    return True


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good file with some bytes replaced, inserted or cut, most of them in the header."""
    data = bytearray(GOOD)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data) - 1))
        patch = draw(
            st.sampled_from([b"", b"0", b"-0", b"1", b"9", b"]", b"[", b'"', b" ", b",", b"\xff", b"."])
        )
        data[at : at + draw(st.integers(0, 2))] = patch
    if draw(st.booleans()):
        data[:8] = struct.pack("<Q", int.from_bytes(GOOD[:8], "little") + len(data) - len(GOOD))
    return bytes(data)


@settings(max_examples=1500, deadline=None)
@given(mutated())
def test_what_is_accepted_the_library_accepts(data: bytes) -> None:
    assert library_accepts(data) or not accepted(data)


counts = st.sampled_from([0, 1, 2, 4, 8, 12, 2**32, 2**63])
entries = st.fixed_dictionaries({
    "dtype": st.sampled_from(["F32", "F16", "BF16", "I8", "I64", "F99"]),
    "shape": st.lists(counts, max_size=3),
    "data_offsets": st.tuples(counts, counts),
})


@settings(max_examples=1500, deadline=None)
@given(st.dictionaries(st.sampled_from("abc"), entries, max_size=3), st.sampled_from([0, 4, 8, 12]))
def test_on_any_well_formed_header_both_say_the_same(header: dict[str, Any], size: int) -> None:
    data = built(header, bytes(size))
    assert accepted(data) == library_accepts(data)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), max_size=5))
def test_every_file_the_library_writes_is_read_with_its_shapes(shapes: list[tuple[int, int]]) -> None:
    arrays = {f"t{i}": np.zeros(shape, np.float32) for i, shape in enumerate(shapes)}
    header = read_header(io.BytesIO(save(arrays)), max_bytes=1 << 20)
    assert {name: entry.shape for name, entry in header.items()} == {n: a.shape for n, a in arrays.items()}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        GOOD[:7],
        GOOD[: len(GOOD) // 2],
        GOOD + b"x",
        struct.pack("<Q", 2**62) + GOOD[8:],
        struct.pack("<Q", MAX_HEADER_BYTES + 1) + GOOD[8:],
        built({"a": ENTRY, "b": ENTRY}),
        built({"a": ENTRY | {"data_offsets": [8, 16]}}, bytes(16)),
        built({"a": ENTRY | {"data_offsets": [8, 0]}}),
        built({"a": ENTRY | {"shape": [2**40, 2**40, 0], "data_offsets": [0, 0]}}, b""),
        built({"a": ENTRY | {"shape": [2.0]}}),
        built({"a": ENTRY | {"shape": [True, 2]}}),
        built({"a": ENTRY, "__metadata__": {"format": 1}}),
        built(b"\xef\xbb\xbf" + json.dumps({"a": ENTRY}).encode()),
        built(b'{"a":' * 100_000),
    ],
)
def test_damaged_files_are_refused_by_both(data: bytes) -> None:
    assert not accepted(data)
    assert not library_accepts(data)


@pytest.mark.parametrize(
    "data",
    [
        built(b'{"a":%b,"a":%b}' % ((json.dumps(ENTRY).encode(),) * 2)),
        built({"a": ENTRY | {"strides": [1]}}),
    ],
)
def test_what_two_readers_may_read_differently_is_refused(data: bytes) -> None:
    assert not accepted(data)


def test_a_file_over_the_size_limit_is_refused_before_its_header_is_read() -> None:
    with pytest.raises(AdapterRejected) as refusal:
        read_header(io.BytesIO(bytes(101)), max_bytes=100)
    assert refusal.value.code == "weights_too_large"
    assert "101" in refusal.value.message
    assert "100" in refusal.value.message
