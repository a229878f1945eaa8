"""The adapters of `--lora-modules`: `name=path`, or JSON with `name` and `path`, as in vLLM."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_compose.adapters.errors import InvalidRequest
from lora_compose.adapters.names import check_name

TYPES = {"name": str, "path": str, "base_model_name": str | None, "is_3d_lora_weight": bool}
"""The fields of the JSON form."""


@dataclass(frozen=True)
class LoraModule:
    """An adapter that is registered when the server starts."""

    name: str
    path: str
    """A directory, or `org/repo` of the Hugging Face Hub."""
    base_model_name: str | None = None

    @property
    def directory(self) -> Path | None:
        """The directory if `path` is one."""
        directory = Path(self.path).expanduser()
        return directory if self.path and directory.is_dir() else None


def read_modules(texts: Iterable[str]) -> tuple[LoraModule, ...]:
    """The adapters in the values of `--lora-modules`. Raises ValueError that names the flag and the value."""
    modules = tuple(_module(text, fields) for text in texts for fields in _fields(text))
    names = Counter(module.name for module in modules)
    if twice := [name for name, count in names.items() if count > 1]:
        raise ValueError(f"--lora-modules has the name {twice[0]} twice. Give each adapter a name of its own")
    return modules


def _module(text: str, fields: dict[str, Any]) -> LoraModule:
    try:
        check_name(fields["name"])
    except InvalidRequest as error:
        raise ValueError(f"--lora-modules ({text}): {error.message}") from error
    if fields.pop("is_3d_lora_weight", False):
        raise ValueError(f"--lora-modules ({text}): is_3d_lora_weight is not supported")
    module = LoraModule(**fields)
    _check_place(module)
    return module


def _check_place(module: LoraModule) -> None:
    """Raise ValueError if `path` cannot be an adapter. A repository of the Hub is looked up later."""
    path, directory = module.path, module.directory
    if directory is None and (path.startswith(("/", ".", "~")) or path.count("/") != 1):
        raise ValueError(f"--lora-modules {module.name}: {path} is not a directory")
    if directory is not None and not (directory / "adapter_config.json").is_file():
        raise ValueError(f"--lora-modules {module.name}: {path} has no adapter_config.json")


def _fields(text: str) -> list[dict[str, Any]]:
    name, equals, path = text.partition("=")
    if equals and not text.startswith(("{", "[")):
        return [{"name": name, "path": path}]
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    found = value if isinstance(value, list) else [value]
    if not found or not all(map(_is_complete, found)):
        example = '{"name": "sql", "path": "/adapters/sql"}'
        raise ValueError(f"--lora-modules ({text}) must be name=path, or JSON as '{example}'")
    return found


def _is_complete(fields: Any) -> bool:
    return (
        isinstance(fields, dict)
        and {"name", "path"} <= fields.keys() <= TYPES.keys()
        and all(isinstance(value, TYPES[name]) for name, value in fields.items())
    )
