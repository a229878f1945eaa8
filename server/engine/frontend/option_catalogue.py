"""Writes server/options/catalogue.json: vLLM's options and environment variables, for use without vLLM.

python -m lora_compose.server.engine.frontend.option_catalogue > server/options/catalogue.json
"""

import json
import sys
from argparse import Action, BooleanOptionalAction
from collections.abc import Callable
from enum import Enum
from inspect import getclosurevars
from typing import Any

from vllm import __version__, envs
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser

KINDS = {
    "int": "int",
    "float": "float",
    "loads": "json",
    "human_readable_int": "size",
    "human_readable_int_or_auto": "size",
}
"""The names of vLLM's types of values that can be checked without vLLM. Every other value is "text"."""


def catalogue() -> dict[str, Any]:
    """The options of vLLM's `serve` in the order of its parser, and the names of its variables."""
    parser = make_arg_parser(FlexibleArgumentParser(prog="serve"))
    options = [
        _option(action, group.title or "")
        for group in parser._action_groups
        for action in group._group_actions
        if action.option_strings and "--help" not in action.option_strings
    ]
    variables = sorted(envs.environment_variables)
    return {"vllm": __version__.partition("+")[0], "options": options, "environment": variables}


def as_text(catalogue: dict[str, Any]) -> str:
    """JSON with one line for each option, so that a change of vLLM's options is easy to read."""
    options = ",\n".join(map(json.dumps, catalogue["options"]))
    variables = json.dumps(catalogue["environment"])
    return f'{{"vllm": "{catalogue["vllm"]}",\n"options": [\n{options}\n],\n"environment": {variables}}}\n'


def _option(action: Action, group: str) -> dict[str, Any]:
    kind, is_optional = _kind(action.type)
    name = next(flag for flag in action.option_strings if flag.startswith("--"))
    return {
        "name": name.removeprefix("--"),
        "flags": list(action.option_strings),
        "group": group,
        "values": 1 if action.nargs is None else action.nargs,
        "is_toggle": isinstance(action, BooleanOptionalAction),
        "kind": kind,
        "is_optional": is_optional,
        "choices": _choices(action),
    }


def _kind(type_: Any) -> tuple[str, bool]:
    """(The kind of value, whether the value may be left empty or be `None`)."""
    is_optional = getattr(type_, "__name__", "") == "_optional_type"
    while (inner := _wrapped(type_)) is not None:
        type_ = inner
    return KINDS.get(getattr(type_, "__name__", ""), "text"), is_optional


def _wrapped(type_: Any) -> Callable[[str], Any] | None:
    """The function that vLLM's `optional_type` or `parse_type` calls; None if `type_` is another one."""
    if getattr(type_, "__name__", "") not in {"_optional_type", "_parse_type"}:
        return None
    inner: Callable[[str], Any] = getclosurevars(type_).nonlocals["return_type"]
    return inner


def _choices(action: Action) -> list[str] | None:
    if not action.choices:
        return None
    values = (choice.value if isinstance(choice, Enum) else choice for choice in action.choices)
    return [str(value) for value in values if value is not None]


if __name__ == "__main__":
    sys.stdout.write(as_text(catalogue()))
