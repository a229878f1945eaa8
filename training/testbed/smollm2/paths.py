"""Paths of what is shipped for SmolLM2."""

from pathlib import Path
from typing import Final

SMOLLM2_DIR: Final = Path(__file__).resolve().parent
DATA_DIR: Final = SMOLLM2_DIR / "data"
REPLAY_FILE: Final = SMOLLM2_DIR / "replay.jsonl"
RECIPES_DIR: Final = SMOLLM2_DIR / "recipes"
ADAPTERS_DIR: Final = SMOLLM2_DIR / "adapters"
MEASURED_FILE: Final = SMOLLM2_DIR / "measured.json"
BASE_NAME: Final = "smollm2"
"""The base's name in the adapters' configs."""
