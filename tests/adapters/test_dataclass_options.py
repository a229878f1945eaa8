from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import typer
from pydantic import with_config
from typer.core import TyperOption
from typer.testing import CliRunner

from lora_compose.adapters.dataclass_options import ATTRIBUTE_DOCSTRINGS, options_from


@with_config(ATTRIBUTE_DOCSTRINGS)
@dataclass(frozen=True)
class Inner:
    half_life: float = 60.0
    """Seconds after which
    a token counts half."""


@with_config(ATTRIBUTE_DOCSTRINGS)
@dataclass(frozen=True)
class Config:
    model: str
    """The base."""
    port: int = 8000
    """Port to listen on."""
    strict: bool = False
    """Refuse what is doubtful."""
    allow: bool = field(default=True, metadata={"flag": "--allow/--no-allow"})
    """Let it happen."""
    roots: tuple[Path, ...] = field(default=(), metadata={"flag": "--root", "metavar": "DIR"})
    """Directories."""
    ranks: tuple[int, ...] = field(default=(8, 16), metadata={"separator": ","})
    """Ranks."""
    log: Literal["text", "json"] = "text"
    """How log lines look."""
    limit: int | None = None
    """Largest number."""
    pool: int = field(default=8, metadata={"flag": None})
    inner: Inner = field(default_factory=Inner, metadata={"prefix": "fuse"})
    """Settings of fusing."""

    def __post_init__(self) -> None:
        if not 0 < self.port < 65536:
            raise ValueError(f"--port ({self.port}) must be between 1 and 65535")


app = typer.Typer()
seen: list[Config] = []


@app.command()
@options_from(Config)
def show(config: Config, loud: bool = False) -> None:
    seen.append(config)


def read(*arguments: str) -> Config:
    result = CliRunner().invoke(app, ["--model", "m", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return seen.pop()


def test_without_options_the_defaults_are_the_dataclasss_own() -> None:
    assert read() == Config("m")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--port", "80"], Config("m", port=80)),
        (["--strict"], Config("m", strict=True)),
        (["--no-allow"], Config("m", allow=False)),
        (["--root", "a", "--root", "b"], Config("m", roots=(Path("a"), Path("b")))),
        (["--ranks", "1, 2"], Config("m", ranks=(1, 2))),
        (["--ranks", ""], Config("m", ranks=())),
        (["--log", "json"], Config("m", log="json")),
        (["--limit", "0"], Config("m", limit=0)),
        (["--fuse-half-life", "2.5"], Config("m", inner=Inner(2.5))),
    ],
)
def test_an_option_sets_its_field(arguments: list[str], expected: Config) -> None:
    assert read(*arguments) == expected


def test_help_and_defaults_are_the_fields_own() -> None:
    options = {one.name: one for one in typer.main.get_command(app).params if isinstance(one, TyperOption)}
    assert set(options) >= {"model", "port", "loud", "fuse_half_life"}
    assert "pool" not in options
    assert options["model"].required
    assert options["fuse_half_life"].help == "Seconds after which a token counts half."
    assert (options["roots"].help, options["roots"].metavar) == ("Directories. Repeatable.", "DIR")
    assert (options["ranks"].default, options["port"].default) == ("8,16", 8000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "0"], "error: --port (0) must be between 1 and 65535"),
        (["--ranks", "x"], "error: --ranks (x) must be int values separated by ','"),
    ],
)
def test_a_value_that_cannot_work_is_one_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["--model", "m", *arguments])
    assert (result.exit_code, result.output) == (2, f"{message}\n")
