"""Keep, of the CUDA code in a shared library, the images for one architecture; zeros replace the rest.

Zeros compress to almost nothing. The host code, all sizes and all offsets stay, so the file loads as before.
Inside each fat binary the kept images move to the front, and the length in its header shrinks. A fat binary
with nothing to keep gets a small image for compute capability 7.5. If such a kernel is launched, the driver
answers "no kernel image", as it does for upstream's own binaries for other devices.

A script of the standard library alone: `build_kit.sh` runs it with any Python 3.11 or later.
"""

import argparse
import re
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

REGION = struct.Struct("<IHHQ")
"""Magic number, version, size of the header, number of bytes that follow."""
IMAGE = struct.Struct("<HHIQ")
"""Kind, version, size of the header, number of bytes that follow."""
MAGIC = 0xBA55ED50
VERSION, HEADER_SIZE = 1, 16
LENGTH_OFFSET, ARCH_OFFSET = 8, 28
ELF, PLACEHOLDER_ARCH = 2, 75


@dataclass(frozen=True)
class Image:
    """Code for one architecture. `length` includes the header."""

    offset: int
    length: int
    kind: int
    arch: int


@dataclass(frozen=True)
class FatBinary:
    """One region of images. `length_offset` is where its header holds the number of bytes."""

    length_offset: int
    images: tuple[Image, ...]

    @property
    def first(self) -> int:
        """The offset of the first image."""
        return self.length_offset - LENGTH_OFFSET + HEADER_SIZE

    @property
    def length(self) -> int:
        """The bytes of all images."""
        return sum(image.length for image in self.images)


def fat_binaries(data: bytes | bytearray) -> Iterator[FatBinary]:
    """Every fat binary in the file, in order."""
    position = 0
    while (position := data.find(struct.pack("<I", MAGIC), position)) >= 0:
        _, version, header, total = REGION.unpack_from(data, position)
        if (version, header) != (VERSION, HEADER_SIZE):
            position += 4
            continue
        first, end = position + header, position + header + total
        yield FatBinary(position + LENGTH_OFFSET, tuple(_images(data, first, end)))
        position = end


def _images(data: bytes | bytearray, at: int, end: int) -> Iterator[Image]:
    while at < end:
        kind, _, header, size = IMAGE.unpack_from(data, at)
        (arch,) = struct.unpack_from("<I", data, at + ARCH_OFFSET)
        yield Image(at, header + size, kind, arch)
        at += header + size


def code_of(data: bytes | bytearray, image: Image) -> bytes:
    """The image's bytes, with its header."""
    return bytes(data[image.offset : image.offset + image.length])


def placeholder(data: bytes | bytearray) -> bytes:
    """The smallest image for compute capability 7.5. Raises ValueError if the file has none."""
    every = (image for binary in fat_binaries(data) for image in binary.images)
    found = [image for image in every if (image.kind, image.arch) == (ELF, PLACEHOLDER_ARCH)]
    if not found:
        raise ValueError("the library has no code for compute capability 7.5")
    return code_of(data, min(found, key=lambda image: image.length))


def is_wanted(among: str | None, keep: str | None) -> Callable[[bytes], bool]:
    """Accepts an image that does not match `among`, or that matches `keep`; without `keep`, every image."""
    if keep is None:
        return lambda _: True
    chosen = re.compile(keep.encode())
    candidates = re.compile(among.encode()) if among else None

    def wanted(code: bytes) -> bool:
        is_candidate = candidates is None or candidates.search(code) is not None
        return not is_candidate or chosen.search(code) is not None

    return wanted


def thin(data: bytearray, arch: int, other: bytes, wanted: Callable[[bytes], bool]) -> Counter[str]:
    """Change `data` in place; returns the counts. `other` goes where nothing is kept, if it fits."""
    counted: Counter[str] = Counter()
    for binary in list(fat_binaries(data)):
        fit = [code_of(data, image) for image in binary.images if (image.kind, image.arch) == (ELF, arch)]
        kept = [code for code in fit if wanted(code)]
        counted["fat binaries kept" if kept else "fat binaries emptied"] += 1
        if not kept:
            smallest = min(binary.images, key=lambda image: image.length)
            kept = [other if len(other) <= binary.length else code_of(data, smallest)]
        code = b"".join(kept)
        data[binary.first : binary.first + binary.length] = code + bytes(binary.length - len(code))
        struct.pack_into("<Q", data, binary.length_offset, len(code))
        counted["bytes before"] += binary.length
        counted["bytes kept"] += len(code)
    return counted


def main() -> None:
    """Read `source`, write `target`, print what was kept."""
    parser = argparse.ArgumentParser(
        description="Keep the CUDA code for one architecture in a shared library."
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--arch", type=int, default=90, help="10 x compute capability, such as 90")
    parser.add_argument("--placeholder-from", type=Path, help="a library with code for capability 7.5")
    parser.add_argument("--among", help="regular expression: --keep chooses among the images that match it")
    parser.add_argument("--keep", help="regular expression: the images to keep; all others stay")
    options = parser.parse_args()
    data = bytearray(options.source.read_bytes())
    other = placeholder((options.placeholder_from or options.source).read_bytes())
    counted = thin(data, options.arch, other, is_wanted(options.among, options.keep))
    options.target.write_bytes(data)
    sys.stdout.write(f"{options.source.name}: {dict(counted)}\n")


if __name__ == "__main__":
    main()
