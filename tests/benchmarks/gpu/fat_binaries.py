"""A made-up shared library with fat binaries in it, byte by byte as `nvcc` writes them."""

import struct

ELF, PTX = 2, 1
HEADER_BYTES = 64
HOST_CODE = b"host code "


def image(arch: int, code: bytes, kind: int = ELF) -> bytes:
    """Code for one architecture, behind its header."""
    header = struct.pack("<HHIQ", kind, 0x0101, HEADER_BYTES, len(code)).ljust(28, b"\0")
    return (header + struct.pack("<I", arch)).ljust(HEADER_BYTES, b"\0") + code


def fat_binary(*images: bytes) -> bytes:
    """One region of images."""
    body = b"".join(images)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def library(*binaries: bytes) -> bytes:
    """Fat binaries with host code before, between and after them."""
    return HOST_CODE + HOST_CODE.join(binaries) + HOST_CODE
