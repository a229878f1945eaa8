"""The refusals of options: what is wrong, the nearest known option, and what to use instead."""

import json
import re
from collections.abc import Iterable
from difflib import get_close_matches

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.server.options.catalogue import VllmOption
from lora_compose.server.options.decisions import ELSEWHERE, Refusal

SIZE = re.compile(r"\d+|\d+(\.\d+)?[kmgt]|\d+[KMGT]|-1|auto", re.ASCII)
"""A number of bytes or tokens as vLLM reads it: 1k is 1000, 1K is 1024."""
MANY = 12
"""A message lists at most this many choices."""


def invalid(sentence: str) -> LoraComposeError:
    """A refusal of an option, in one sentence or more."""
    return LoraComposeError(CommandCode.INVALID_OPTION, sentence)


def unknown(flag: str, known: Iterable[str], place: str) -> LoraComposeError:
    """The refusal of a flag that is not known. `place` is the file it is in, or empty."""
    flag = flag.partition("=")[0]
    near = get_close_matches(flag, list(known), 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    if (name := flag.removeprefix("--")) in ELSEWHERE:
        hint = f" {ELSEWHERE[name]}."
    return invalid(f"{place}{flag} is not an option of `lora-compose serve`.{hint}")


def refused(flag: str, refusal: Refusal) -> LoraComposeError:
    """The refusal of an option of vLLM that this server does not honour."""
    return invalid(f"{flag} is an option of vLLM that this server does not offer. {refusal.reason}.")


def check_value(option: VllmOption, text: str) -> None:
    """Raise LoraComposeError if vLLM could not read this value of the option."""
    if option.is_optional and text in {"", "None"}:
        return
    if not _reads(option.kind, text):
        raise invalid(f"{option.flag} ({text}) must be {_EXPECTED[option.kind]}.")
    if option.choices and text not in option.choices:
        near = get_close_matches(text, option.choices, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        listed = ", ".join(option.choices[:MANY]) + (", …" if len(option.choices) > MANY else "")
        raise invalid(f"{option.flag} ({text}) must be one of {listed}.{hint}")


_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "size": "a number, as 2048, 4k or 1G",
    "json": "JSON",
}


def _reads(kind: str, text: str) -> bool:
    if kind == "size":
        return SIZE.fullmatch(text.strip()) is not None
    try:
        if kind in {"int", "float"}:
            int(text) if kind == "int" else float(text)
        elif kind == "json":
            json.loads(text)
    except ValueError:
        return False
    return True
