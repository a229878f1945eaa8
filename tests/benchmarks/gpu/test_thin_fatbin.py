"""The thinned library keeps the code of one architecture, and every byte of the host code in its place."""

import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from lora_compose.benchmarks.gpu import thin_fatbin
from lora_compose.benchmarks.gpu.thin_fatbin import fat_binaries, is_wanted, placeholder, thin
from tests.benchmarks.gpu.fat_binaries import HOST_CODE, PTX, fat_binary, image, library

OLD, HOPPER, NEWER = image(75, b"old" * 9), image(90, b"hopper" * 20), image(100, b"newer" * 30)
PTX_OF_HOPPER = image(90, b"text of hopper", kind=PTX)
BOTH = fat_binary(OLD, HOPPER, PTX_OF_HOPPER, NEWER)
NEWER_ONLY = fat_binary(NEWER)


def thinned(data: bytes, among: str | None = None, keep: str | None = None) -> tuple[bytes, Counter[str]]:
    result = bytearray(data)
    counted = thin(result, 90, placeholder(data), is_wanted(among, keep))
    return bytes(result), counted


def test_only_the_chosen_architecture_s_compiled_code_is_left() -> None:
    result, _ = thinned(library(BOTH))
    (binary,) = fat_binaries(result)
    assert [(one.kind, one.arch) for one in binary.images] == [(thin_fatbin.ELF, 90)]
    assert thin_fatbin.code_of(result, binary.images[0]) == HOPPER


def test_a_fat_binary_with_nothing_to_keep_holds_the_small_image_of_7_5() -> None:
    result, _ = thinned(library(BOTH, NEWER_ONLY))
    emptied = list(fat_binaries(result))[1]
    assert [thin_fatbin.code_of(result, one) for one in emptied.images] == [OLD]


def test_the_file_keeps_its_size_and_the_host_code_its_place() -> None:
    data = library(BOTH, NEWER_ONLY)
    result, _ = thinned(data)
    assert len(result) == len(data)
    assert [at for at in range(len(data)) if data.startswith(HOST_CODE, at)] == [
        at for at in range(len(result)) if result.startswith(HOST_CODE, at)
    ]


def test_what_is_left_out_becomes_zeros() -> None:
    result, counted = thinned(library(BOTH))
    assert result.count(b"newer") == 0
    assert counted["bytes before"] - counted["bytes kept"] == len(OLD + PTX_OF_HOPPER + NEWER)
    assert result.endswith(bytes(len(OLD + PTX_OF_HOPPER + NEWER)) + HOST_CODE)


def test_among_and_keep_choose_between_images_and_leave_others() -> None:
    wide, narrow, other = image(90, b"attention 128"), image(90, b"attention 256"), image(90, b"norm")
    data = library(fat_binary(OLD, wide, narrow, other))
    result, _ = thinned(data, among="attention", keep="attention (64|128)")
    (binary,) = fat_binaries(result)
    assert [thin_fatbin.code_of(result, one) for one in binary.images] == [wide, other]


def test_the_magic_number_in_another_place_is_no_fat_binary() -> None:
    decoy = struct.pack("<IHHQ", 0xBA55ED50, 7, 7, 1 << 40)
    assert list(fat_binaries(decoy + b"host code")) == []


def test_a_library_without_code_for_7_5_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no code for compute capability 7\.5"):
        placeholder(library(NEWER_ONLY))


def test_the_script_runs_without_the_project(tmp_path: Path) -> None:
    source, target = tmp_path / "source.so", tmp_path / "target.so"
    source.write_bytes(library(BOTH))
    command = [sys.executable, "-I", "-S", thin_fatbin.__file__, str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert target.read_bytes() == thinned(library(BOTH))[0]
    assert done.stdout.startswith("source.so: {'fat binaries kept': 1")
