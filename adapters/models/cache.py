"""The directories of known models in the user's cache, and the one place where a name becomes a directory.

A model's directory has a record with the digest of each of its files. `resolve` compares them each time, in
about half a second, so that a damaged file is noticed before a server or a training reads it.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from platformdirs import user_cache_path

from lora_compose.adapters.command_line import DISTRIBUTION, default_data_dir
from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.adapters.models.known import KNOWN, MB, KnownModel

RECORD_FILE: Final = "lora-compose-model.json"
WEIGHTS_FILE: Final = "model.safetensors"
MODELS: Final = "models"

State = Literal["missing", "ready", "damaged"]


def models_dir() -> Path:
    """The directory of all known models: below XDG_CACHE_HOME, or `.cache` in the home directory.

    A user without a home directory has it in the default data directory."""
    try:
        return user_cache_path(DISTRIBUTION) / MODELS
    except RuntimeError:
        return default_data_dir().absolute() / MODELS


@dataclass(frozen=True)
class CachedModel:
    """A known model and the directory that it has, or would have."""

    model: KnownModel
    directory: Path

    @classmethod
    def of(cls, model: KnownModel) -> "CachedModel":
        """The model in `models_dir`."""
        return cls(model, models_dir() / model.name)

    @property
    def state(self) -> State:
        """Whether the model can be used."""
        if not self.directory.is_dir():
            return "missing"
        return "ready" if self.problem() is None else "damaged"

    def problem(self) -> str | None:
        """What is wrong with the files, as a sentence part; None if nothing is."""
        try:
            digests = json.loads((self.directory / RECORD_FILE).read_bytes())["files"]
            if digests[WEIGHTS_FILE] != self.model.weights_sha256:
                return f"{WEIGHTS_FILE} has other weights"
            for name, digest in digests.items():
                if sha256_of(self.directory / name) != digest:
                    return f"{name} has changed"
        except FileNotFoundError as error:
            return f"{Path(error.filename).name} is missing"
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return f"{RECORD_FILE} or a file that it lists cannot be read"
        return None

    def to_dict(self) -> dict[str, Any]:
        """The facts that `--json` prints."""
        model = self.model
        facts = {"name": model.name, "title": model.title, "license": model.license, "bytes": model.bytes}
        return facts | {"package": model.requirement, "state": self.state, "directory": str(self.directory)}


def write_record(model: KnownModel, directory: Path) -> None:
    """Write the digests of all files in `directory`. Raises LoraComposeError if the weights are not the
    model's."""
    files = {path.name: sha256_of(path) for path in sorted(directory.iterdir())}
    if files.get(WEIGHTS_FILE) != model.weights_sha256:
        raise LoraComposeError(
            CommandCode.MODEL_CHANGED,
            f"The conversion of {model.name} gave other weights than it should: the installed versions of "
            "transformers and gguf are not those of this project. Run `make setup` again.",
        )
    record = {"model": model.name, "package": model.requirement, "files": files}
    (directory / RECORD_FILE).write_text(json.dumps(record, indent=1) + "\n")


def resolve(model: str, option: str = "--model") -> str:
    """The directory of a known model, in place of its name. Every other value is returned unchanged.

    A directory of this name in the current directory comes first. Raises LoraComposeError("no_model") if the
    model is not in the cache, or its files have changed."""
    known = KNOWN.get(model)
    if known is None or Path(model).is_dir():
        return model
    cached = CachedModel.of(known)
    if not cached.directory.is_dir():
        raise LoraComposeError(
            CommandCode.NO_MODEL,
            f"{option} {model} is not on this machine. Get it: `lora-compose models get {model}` downloads "
            f"{known.wheel_bytes / MB:.0f} MB.",
        )
    problem = cached.problem()
    if problem is not None:
        raise LoraComposeError(
            CommandCode.NO_MODEL,
            f"{option} {model} is damaged: {problem} in {cached.directory}. Get it again: `lora-compose "
            f"models get {model}`.",
        )
    return str(cached.directory)


def name_of(directory: str) -> str | None:
    """The name of the known model that `resolve` found in `directory`. None for any other base."""
    path = Path(directory)
    known = KNOWN.get(path.name)
    return known.name if known is not None and path == CachedModel.of(known).directory else None


def sha256_of(path: Path) -> str:
    """The digest of a file as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
