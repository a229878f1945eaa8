"""Writes docs/reference/commands.md from the commands themselves.

python -m tests.docs.command_page > docs/reference/commands.md
"""

import inspect
import os
import sys
from collections.abc import Iterator
from enum import Enum
from typing import Any, Literal, get_args, get_origin

import typer
from typer.core import TyperArgument, TyperGroup

from lora_compose.adapters.command_line import Command, create_app, default_data_dir
from tests.docs.blocks import ROOT

HEAD = """# Commands and flags

Written by `python -m tests.docs.command_page` from the commands themselves. `lora-compose COMMAND --help`
shows the same in a terminal. [The environment](environment.md) lists the variables.
"""


def commands(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every command with its full name, groups before their commands."""
    if name:
        yield name, command
    if isinstance(command, TyperGroup):
        context = typer.Context(command)
        for part in command.list_commands(context):
            inner = command.get_command(context, part)
            assert inner is not None
            yield from commands(inner, f"{name} {part}".strip())


def page() -> str:
    """The complete text of docs/reference/commands.md."""
    root = typer.main.get_command(create_app())
    assert isinstance(root, Command)
    parts = [HEAD]
    for name, command in commands(root):
        level = "##" if " " not in name else "###"
        parts.append(f"{level} `lora-compose {name}`\n\n{prose(command.help or command.short_help or '')}\n")
        rows = [row(parameter) for parameter in command.params if shown(parameter)]
        if rows:
            parts.append("| option | meaning | default |\n|---|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def shown(parameter: Any) -> bool:
    """Not `--help` and not what is hidden."""
    return parameter.name != "help" and not getattr(parameter, "hidden", False)


def prose(text: str) -> str:
    """A docstring as Markdown. Typer marks a paragraph that is kept with \\b."""
    return inspect.cleandoc(text.split("\f")[0]).replace("\b\n", "").strip()


def row(parameter: Any) -> str:
    """A line of the table: names with the value, help with the variable, default."""
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    if isinstance(parameter, TyperArgument):
        names = f"`{(parameter.metavar or parameter.name).upper().strip('[]')}`"
    elif not parameter.is_flag:
        names += f" {value_name(parameter)}"
    told = " ".join((getattr(parameter, "help", None) or "").split()).replace("|", "\\|")
    variables = [parameter.envvar] if isinstance(parameter.envvar, str) else (parameter.envvar or [])
    if variables:
        told += f" Variable: {', '.join(f'`{name}`' for name in variables)}."
    return f"| {names} | {told} | {default(parameter)} |"


def value_name(parameter: Any) -> str:
    """What stands for the value: its metavar, its choices, or its type."""
    if parameter.metavar:
        return f"`{parameter.metavar.strip('[]<>').upper()}`"
    kind = parameter.type_descriptor.annotation
    if isinstance(kind, type) and issubclass(kind, Enum):
        return f"`{' '.join(str(one.value) for one in kind)}`"
    if get_origin(kind) is Literal:
        return f"`{' '.join(map(str, get_args(kind)))}`"
    return f"`{getattr(kind, '__name__', str(kind)).upper()}`"


def default(parameter: Any) -> str:
    """The default, with no path of this machine."""
    if getattr(parameter, "required", False):
        return "required"
    value = parameter.default
    if isinstance(getattr(parameter, "show_default", None), str):
        value = parameter.show_default
    if callable(value) or value is None or value is False or value in ((), [], ""):
        return ""
    if value == default_data_dir():
        return "the user data directory of the platform"
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, list | tuple):
        value = " ".join(map(str, value))
    return f"`{str(value).removeprefix(f'{ROOT}/')}`"


if __name__ == "__main__":
    os.environ.setdefault("COLUMNS", "200")
    sys.stdout.write(page())
