"""Paths of what is shipped for SmolLM2, and the option that names its base."""

from pathlib import Path
from typing import Annotated, Final

import typer

from lora_compose.adapters.models.cache import resolve

SMOLLM2_DIR: Final = Path(__file__).resolve().parent
DATA_DIR: Final = SMOLLM2_DIR / "data"
REPLAY_FILE: Final = SMOLLM2_DIR / "replay.jsonl"
RECIPES_DIR: Final = SMOLLM2_DIR / "recipes"
ADAPTERS_DIR: Final = SMOLLM2_DIR / "adapters"
MANIFEST_FILE: Final = SMOLLM2_DIR / "manifest.json"
MEASURED_FILE: Final = SMOLLM2_DIR / "measured.json"
BASE_NAME: Final = "smollm2"
"""The base's name in `lora-compose models list` and in the adapters' configs."""
BaseModel = Annotated[
    str, typer.Option(help="The base: a name of `lora-compose models list`, or a directory.")
]


def base_directory(base: str) -> Path:
    """The directory of the base. Raises LoraComposeError("no_model") if it is not on this machine."""
    return Path(resolve(base, "--base"))
