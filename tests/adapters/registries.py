"""Small contents for a registry. It never reads inside them, so a few bytes are enough."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_compose.adapters.peft.files import CONFIG_FILE, WEIGHTS_FILE
from lora_compose.adapters.registry.registry import Registry
from lora_compose.adapters.registry.store import Base, Version
from lora_compose.adapters.registry.versions import Terms


@dataclass(frozen=True)
class Facts:
    """Facts that an admission could have found."""

    rank: int = 8
    parameters: int = 1024
    peak: float = 2.5
    coverage: dict[str, Any] = field(default_factory=lambda: {"layers": [0, 1]})
    warnings: tuple[str, ...] = ("trained on another base",)


def write_files(directory: Path, text: str) -> Path:
    """The two files, with bytes that depend on `text`."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / CONFIG_FILE).write_text("{}")
    (directory / WEIGHTS_FILE).write_text(text)
    return directory


BASE = Base("f00d", "made-up")
FOR_BASE = Terms(base=BASE)


def register(registry: Registry, name: str, text: str, terms: Terms = FOR_BASE) -> tuple[Version, bool]:
    with registry.staging() as staged:
        return registry.register(name, write_files(staged, text), Facts(), "test", {}, terms)


def add_merge(registry: Registry, key: str, text: str, members: list[str]) -> Path:
    with registry.staging() as staged:
        return registry.merges.add(key, write_files(staged, text), {"relative_error": 0.25}, members)


def weights_of(version: Version) -> str:
    return (version.directory / WEIGHTS_FILE).read_text()
