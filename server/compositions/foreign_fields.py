"""Refuses fields by which a client of another server names an adapter, and misspelt fields of this server.

vLLM ignores fields that it does not know. Without this check, a request with `adapter_id`, `lora_path` or
`adaptors` would be answered with 200 by the base model alone. A field that is null counts as absent, because
the clients of other servers send the fields that they do not use as null.
"""

import re
import string
from collections.abc import Mapping
from typing import Any

from lora_compose.adapters.errors import Code, InvalidRequest
from lora_compose.adapters.validation import unknown_field

CONTAINERS = (
    *("extra_args", "extra_body", "extra_params", "nvext", "options", "parameters", "sampling_params"),
    "vllm_xargs",
)
"""Objects in which clients of vLLM, TGI, LoRAX, SGLang, Dynamo and Ollama send further fields."""
OURS = ("adapters", "composition", "lora", "merged_adapters")
IN_COMPOSITION = frozenset({"density", "majority_sign_method", "method", "rank"})
"""Fields of `composition` that have no meaning at the top level."""
USE = (
    'Name the adapter in model, as in "model": "NAME:0.7", or in adapters, as in '
    '"adapters": [{"name": "NAME", "weight": 0.7}]. For a merge, send composition together with adapters.'
)

_WEIGHTS = frozenset({
    *("combinationtype", "merge", "mergemethod", "merges", "mergestrategy", "mergingmethod", "scale"),
    *("scales", "scaling", "svdrank", "weight", "weights"),
})
"""Fields that weigh or merge adapters on other servers, without "_" and in lower case."""
_ADAPTER_WORDS = re.compile("lora.*|.*loras?|.*adapt[eo]rs?.*|adapts?|peft.*|compos(e|ed|er|es|ing|itions?)")
"""The words of field names that name adapters. `adaptive` and `exploration` are not among them."""
_WORD = re.compile("[A-Z]*[a-z0-9]+|[A-Z]+")
_HINTS = ("lora", "adapt", "compos", "peft")


def _misspellings(name: str) -> set[str]:
    """Every text that differs from `name` in one letter, or in the order of two neighbours."""
    halves = [(name[:i], name[i:]) for i in range(len(name) + 1)]
    return {
        *(left + right[1:] for left, right in halves),
        *(left + right[1] + right[0] + right[2:] for left, right in halves if len(right) > 1),
        *(left + letter + right[1:] for left, right in halves for letter in string.ascii_lowercase),
        *(left + letter + right for left, right in halves for letter in string.ascii_lowercase),
    }


def _plain(field: str) -> str:
    return field.lower().replace("_", "").replace("-", "").replace(" ", "")


_NEAR_OURS = frozenset().union(*(_misspellings(_plain(name)) for name in (*OURS, "adapter", "weights")))
_NEAR_MODEL = (_misspellings("model") | {"modelid", "modelname"}) - {"mode"}


def refuse_other_names(body: Mapping[str, Any]) -> None:
    """Raises InvalidRequest("unknown_field") for the first field that would name an adapter elsewhere."""
    for field, value in body.items():
        if value is not None and field not in OURS:
            _refuse(field, body)
    for container in CONTAINERS:
        inside = body.get(container)
        if isinstance(inside, dict):
            _refuse_inside(container, inside)


def _refuse(field: str, body: Mapping[str, Any]) -> None:
    plain = _plain(field)
    if field in IN_COMPOSITION:
        raise _refusal(field, f"Send it inside composition, as composition.{field}.")
    if plain in _WEIGHTS or plain in _NEAR_OURS or _names_an_adapter(field, plain):
        raise _refusal(field, USE)
    if field != "model" and plain in _NEAR_MODEL and _names_nothing(body):
        raise _refusal(field, "Send the name in model.")


def _refuse_inside(container: str, inside: Mapping[str, Any]) -> None:
    for field, value in inside.items():
        if value is None:
            continue
        if field in OURS:
            raise _refusal(field, f"Send {field} at the top level of the body.", f"{container}.")
        plain = _plain(field)
        if plain in _NEAR_OURS or _names_an_adapter(field, plain):
            raise _refusal(field, USE, f"{container}.")


def _names_an_adapter(field: str, plain: str) -> bool:
    if not any(hint in plain for hint in _HINTS):
        return False
    words = [word.lower() for word in _WORD.findall(field)]
    return any(_ADAPTER_WORDS.fullmatch(word) for word in (plain, *words))


def _names_nothing(body: Mapping[str, Any]) -> bool:
    return all(body.get(field) is None for field in ("model", *OURS))


def _refusal(field: str, instead: str, prefix: str = "") -> InvalidRequest:
    error = unknown_field(field, prefix)
    return InvalidRequest(Code.UNKNOWN_FIELD, f"{error.message} {instead}", error.param)
