"""Reads the file of `--config`: YAML with the options of the command line as keys, as vLLM reads it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from lora_compose.server.options.catalogue import OwnOption, VllmOption
from lora_compose.server.options.refusals import invalid

Shape = VllmOption | OwnOption
Shapes = Mapping[str, Shape]


def words_of(file: str, shapes: Shapes) -> list[str]:
    """The options in the file as words of a command line. A key without a value is left out.

    Raises LoraComposeError if the file cannot be read. Keys are not checked here."""
    return [word for key, value in _read(file).items() for word in _words(file, key, value, shapes)]


def _read(file: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(Path(file).read_text())
    except OSError as error:
        raise invalid(f"--config {file} cannot be read: {error.strerror}.") from error
    except (ValueError, yaml.YAMLError) as error:
        raise invalid(f"--config {file} is not YAML: {' '.join(str(error).split())}.") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise invalid(f"--config {file} must have lines of the form `option: value`.")
    return values


def _words(file: str, key: Any, value: Any, shapes: Shapes) -> Iterator[str]:
    name = str(key).replace("_", "-")
    flag, shape = f"--{name}", shapes.get(name)
    if value is None:
        if shape is None:
            yield flag  # to be refused as unknown
    elif isinstance(value, bool) and (shape is None or _is_switch(shape)):
        if value or shape is None:
            yield flag
        elif isinstance(shape, VllmOption) and shape.is_toggle:
            yield f"--no-{name}"
    elif isinstance(value, list) and not (isinstance(shape, VllmOption) and shape.kind == "json"):
        yield from _words_of_list(file, flag, [*map(_text, value)], shape)
    else:
        yield f"{flag}={_text(value)}"


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def _is_switch(shape: Shape) -> bool:
    return shape.values == 0 if isinstance(shape, VllmOption) else not shape.takes_value


def _words_of_list(file: str, flag: str, values: list[str], shape: Shape | None) -> Iterator[str]:
    if isinstance(shape, VllmOption) and shape.values == "+":
        yield from (flag, *values) if values else ()
    elif shape is None or (isinstance(shape, OwnOption) and shape.is_repeatable) or flag == "--middleware":
        yield from (f"{flag}={value}" for value in values)
    else:
        raise invalid(f"{file}: {flag.removeprefix('--')} takes one value, not a list.")
