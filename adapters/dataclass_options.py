"""Makes command-line options from a dataclass, so that flags, defaults and help are written once.

The dataclass is a standard one, decorated with `@with_config(ATTRIBUTE_DOCSTRINGS)`. The string under a field
is the help of its option. A field whose type is another such dataclass gives the options of that dataclass.

`field(metadata=...)` may hold:
- `flag`: the flag, if it is not the field's name with dashes. None for a field without an option
- `separator`: a tuple is written as one text, with this separator between its values. A tuple field without
  a separator becomes an option that can be repeated
- `prefix`: prefix of the flags of a nested dataclass
- any other argument of `typer.Option`: `metavar`, `envvar`, `show_default`, `rich_help_panel`, `min`, `max`
"""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from pydantic import ConfigDict, TypeAdapter

from lora_compose.adapters.errors import LoraComposeError

KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY
ATTRIBUTE_DOCSTRINGS = ConfigDict(use_attribute_docstrings=True)

Command = Callable[..., None]


def options_from(config: type[Any]) -> Callable[[Command], Command]:
    """Decorator: replaces the parameter of type `config` in a command by one option for each field.

    If `config` raises a ValueError or LoraComposeError, it is printed and the exit code is 2.
    """

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        (target,) = (
            name for name, parameter in signature.parameters.items() if parameter.annotation is config
        )
        parameters: list[inspect.Parameter] = []
        for name, parameter in signature.parameters.items():
            parameters += _parameters(config) if name == target else [parameter.replace(kind=KEYWORD_ONLY)]

        @wraps(command)
        def run(**values: Any) -> None:
            try:
                built = _build(config, values)
            except (ValueError, LoraComposeError) as error:
                typer.echo(f"error: {error}", err=True)
                raise typer.Exit(2) from error
            command(**values, **{target: built})

        vars(run)["__signature__"] = signature.replace(parameters=parameters)
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _options(config: type[Any], prefix: str) -> Iterator[tuple[Field[Any], Any, str]]:
    """(field, its type, name of its parameter) for each field that has an option."""
    types = get_type_hints(config)
    for field in fields(config):
        if field.metadata.get("flag", field.name) is not None:
            yield field, types[field.name], f"{prefix}_{field.name}" if prefix else field.name


def _parameters(config: type[Any], prefix: str = "") -> Iterator[inspect.Parameter]:
    documents = TypeAdapter(config).json_schema()["properties"]
    for field, kind, name in _options(config, prefix):
        if is_dataclass(kind):
            assert isinstance(kind, type)
            yield from _parameters(kind, field.metadata.get("prefix", ""))
        else:
            yield _parameter(field, kind, name, documents[field.name]["description"].replace("\n", " "))


def _parameter(field: Field[Any], kind: Any, name: str, text: str) -> inspect.Parameter:
    settings = {"flag": f"--{name.replace('_', '-')}", **field.metadata}
    flag, separator = settings.pop("flag"), settings.pop("separator", None)
    default: Any = field.default if field.default_factory is MISSING else field.default_factory()
    if separator is not None:
        kind, default = str, separator.join(map(str, default))
    elif get_origin(kind) is tuple:
        kind, default, text = list[get_args(kind)[0]] | None, None, f"{text} Repeatable."  # type: ignore[misc]
    return inspect.Parameter(
        name,
        KEYWORD_ONLY,
        default=inspect.Parameter.empty if default is MISSING else default,
        annotation=Annotated[kind, typer.Option(flag, help=text, **settings)],
    )


def _build(config: type[Any], values: dict[str, Any], prefix: str = "") -> Any:
    """An instance of `config` from its options, which are removed from `values`. None means the default."""
    arguments: dict[str, Any] = {}
    for field, kind, name in _options(config, prefix):
        if is_dataclass(kind):
            assert isinstance(kind, type)
            arguments[field.name] = _build(kind, values, field.metadata.get("prefix", ""))
            continue
        value = values.pop(name)
        if separator := field.metadata.get("separator"):
            value = _split(value, separator, get_args(kind)[0], name)
        elif get_origin(kind) is tuple:
            value = tuple(value) if value else None
        if value is not None:
            arguments[field.name] = value
    return config(**arguments)


def _split(text: str, separator: str, element: type[Any], name: str) -> tuple[Any, ...]:
    try:
        return tuple(element(part.strip()) for part in text.split(separator) if part.strip())
    except ValueError as error:
        values = f"{element.__name__} values separated by {separator!r}"
        raise ValueError(f"--{name.replace('_', '-')} ({text}) must be {values}") from error
