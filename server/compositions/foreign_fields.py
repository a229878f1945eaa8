"""Reads or refuses fields by which clients of other servers name an adapter, and refuses misspelt fields.

vLLM ignores fields that it does not know. Without this check, a request with `adapter_id`, `lora_request` or
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
NAMES_ELSEWHERE = ("adapter_id", "adapter_name", "lora_name", "lora_path")
"""Fields with the name of one adapter, as `model` has it here: of LoRAX and TGI, LMDeploy, Triton, SGLang."""
NO_MEANING_HERE = ("adapter_source", "api_token")
"""LoRAX's fields about fetching an adapter. Registered adapters need no token."""
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
_READ = frozenset({*OURS, *NAMES_ELSEWHERE, *NO_MEANING_HERE})
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
    """Raises InvalidRequest("unknown_field") for the first field that would name an adapter elsewhere.

    `name_elsewhere` reads the fields `NAMES_ELSEWHERE`."""
    check_source(body.get("adapter_source"), "adapter_source")
    for field, value in body.items():
        if value is not None and field not in _READ:
            _refuse(field, body)
    for container in CONTAINERS:
        inside = body.get(container)
        if isinstance(inside, dict):
            _refuse_inside(container, inside)


def check_source(source: object, param: str) -> None:
    """Raises InvalidRequest("source_not_allowed") if LoRAX's `adapter_source` is not this server."""
    if source not in (None, "local"):
        raise InvalidRequest(
            Code.SOURCE_NOT_ALLOWED,
            "Requests can only use adapters that are registered on this server. Register the adapter with "
            'POST /v1/adapters, and leave adapter_source out or send "local".',
            param,
        )


def name_elsewhere(body: Mapping[str, Any]) -> tuple[str, str] | None:
    """(field, name) of the field in `NAMES_ELSEWHERE` that the body has; None if it has none of them.

    SGLang sends a list with one name for each prompt. All of them must be equal here.
    Raises InvalidRequest: invalid_name, and conflicting_fields if two fields have different names."""
    found = [
        (field, _one_name(field, body[field])) for field in NAMES_ELSEWHERE if body.get(field) is not None
    ]
    if len({name for _, name in found}) > 1:
        fields = " and ".join(field for field, _ in found)
        text = f"The request names different adapters in {fields}. Send the name in model only."
        raise InvalidRequest(Code.CONFLICTING_FIELDS, text, found[0][0])
    return found[0] if found else None


def _one_name(field: str, value: object) -> str:
    name = value[0] if isinstance(value, list) and value and value.count(value[0]) == len(value) else value
    if isinstance(name, str) and name:
        return name
    if isinstance(value, list):
        text = f"{field} must have the same name for every prompt. Send one request for each adapter."
    else:
        text = f"{field} must be the name of an adapter. Leave it out for the base."
    raise InvalidRequest(Code.INVALID_NAME, text, field)


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
    return all(body.get(field) is None for field in ("model", *OURS, *NAMES_ELSEWHERE))


def _refusal(field: str, instead: str, prefix: str = "") -> InvalidRequest:
    error = unknown_field(field, prefix)
    return InvalidRequest(Code.UNKNOWN_FIELD, f"{error.message} {instead}", error.param)
