"""Says what a file is that has the name of one of PEFT's two files but not its content, and what to do.

Only the first bytes are looked at. Nothing is converted or unpacked here.
"""

import re
from typing import Any

HEAD_BYTES = 512
"""This many first bytes of a file are looked at."""
_WRITE = "Write the weights with safetensors"
_AGAIN = "It may be the reply to a download that failed. Download the file again"

# First bytes of files: (pattern, what it is, what to do).
_CONTENTS: tuple[tuple[bytes, str, str], ...] = (
    (rb"version https://git-lfs", "is a Git LFS pointer and not the file itself", "Run `git lfs pull`"),
    (rb"<<<<<<< ", "has the marks of a Git merge conflict", "Restore the file"),
    (rb"/annex/objects|\.\./.*annex/objects", "is a pointer of git-annex", "Run `git annex get`"),
    (
        rb"(?i)\s*(<!doctype html|<html|<\?xml|<error)",
        "is a web page, such as an error or login page",
        "Download the file again, with access to it",
    ),
    (rb"PK\x03\x04", "is a zip archive or a pickle of PyTorch", _WRITE),
    (rb"\x80[\x02-\x05]", "is a pickle", _WRITE),
    (rb"GGUF", "is in llama.cpp's format GGUF", "Register the PEFT adapter that it was made from"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf", "is a compressed file or archive", "Unpack it"),
    (rb".{257}ustar", "is a tar archive", "Unpack it"),
    (rb"\x93NUMPY|\x89HDF", "is a file of NumPy or HDF5", _WRITE),
    (rb"\0{64}", "begins with zeros, as an incomplete download does", "Download it again"),
)
_TEXTS: tuple[tuple[bytes, str, str], ...] = (
    (rb"\s*[{\[]", "is JSON and not a safetensors file", _AGAIN),
    (rb"[\x20-\x7e\r\n\t]{9}", "is a text and not a safetensors file", _AGAIN),
)


def what_config_is(data: bytes) -> str | None:
    """What a file that cannot be a config is and what to do, to follow its name. None if it is unknown."""
    if not data.strip():
        return "is empty. Its disk was full or its download failed. Save or download it again"
    return _first(_CONTENTS, data)


def what_weights_are(head: bytes) -> str | None:
    """The same for a file that cannot be the weights, by its first HEAD_BYTES bytes."""
    if not head:
        return "is empty. Its disk was full or its download failed. Save or download it again"
    return _first(_CONTENTS + _TEXTS, head)


def _first(table: tuple[tuple[bytes, str, str], ...], head: bytes) -> str | None:
    for pattern, what, advice in table:
        if re.match(pattern, head, re.DOTALL):
            return f"{what}. {advice}"
    return None


def whose_config(raw: dict[str, Any]) -> str:
    """Which tool wrote a config without `peft_type`, and what to do."""
    if raw.keys() & {"lora_parameters", "lora_layers", "fine_tune_type"}:
        return "It is a config of MLX (mlx_lm). Write PEFT's config, and transpose the adapter's factors"
    if raw.keys() & {"architectures", "model_type"} and "target_modules" not in raw:
        return "It is the config of a whole model. Serve it with `lora-compose serve --model DIR`"
    return "PEFT always writes it, so another tool made the file. Write a config of PEFT"
