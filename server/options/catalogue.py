"""What is known of vLLM's options and environment variables without importing vLLM, which takes ten seconds.

`catalogue.json` is written from vLLM's own parser (`server/engine/frontend/option_catalogue.py`). A test
compares the two.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

FILE = Path(__file__).with_name("catalogue.json")
Kind = Literal["int", "float", "size", "json", "text"]


@dataclass(frozen=True)
class VllmOption:
    """An option of vLLM's `serve`."""

    name: str
    """The long flag without `--`."""
    flags: tuple[str, ...]
    group: str
    values: int | str
    """The number of values, or argparse's `?` or `+`."""
    is_toggle: bool
    """Whether the option also has a flag that begins with `--no-`."""
    kind: Kind
    is_optional: bool
    """Whether the value may be empty or `None`."""
    choices: tuple[str, ...]

    @property
    def flag(self) -> str:
        return f"--{self.name}"

    def turns_off(self, flag: str) -> bool:
        """Whether this flag of the option is the one that turns it off."""
        return self.is_toggle and flag.startswith("--no-") and flag != self.flag


@dataclass(frozen=True)
class OwnOption:
    """An option of this project's `serve`."""

    flag: str
    takes_value: bool = True
    is_repeatable: bool = False


@cache
def read() -> dict[str, Any]:
    """The whole file."""
    content: dict[str, Any] = json.loads(FILE.read_text())
    return content


@cache
def options() -> dict[str, VllmOption]:
    """Every option by name, in the order of vLLM's parser."""
    rows = (
        {**row, "flags": tuple(row["flags"]), "choices": tuple(row["choices"] or ())}
        for row in read()["options"]
    )
    return {row["name"]: VllmOption(**row) for row in rows}


def variables() -> frozenset[str]:
    """The names of the environment variables that vLLM reads."""
    return frozenset(read()["environment"])
