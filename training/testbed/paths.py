"""Paths of the shipped testbed: the base, the adapters trained on it, and the measurements."""

from pathlib import Path
from typing import Final

TESTBED_DIR: Final = Path(__file__).resolve().parent
BASE_DIR: Final = TESTBED_DIR / "base"
ADAPTERS_DIR: Final = TESTBED_DIR / "trained"
MEASURED_FILE: Final = TESTBED_DIR / "measured.json"
BASE_NAME: Final = "lora-compose/testbed-base"
DATA_DIR: Final = TESTBED_DIR.parent / "recipes" / "data"
QUESTIONS_DIR: Final = TESTBED_DIR / "questions"
"""The files that evaluation calls `testbed:NAME`."""
