"""A composition given as JSON fields of a request: ours, llama.cpp's `lora` and LoRAX's `merged_adapters`.

Every function takes what the JSON parser gave, of whatever type; InvalidRequest names the field at fault.
"""

from collections.abc import Iterable

from adapters.composition import Composition, Member, check_weight
from adapters.composition_grammar import parse_reference
from adapters.composition_options import OPTION_NAMES, check_method, read_options, unknown_field
from adapters.errors import InvalidRequest
from adapters.method_options import STACK

LORAX_STRATEGIES = ("linear", "ties", "dare_linear", "dare_ties")


def of_fields(adapters: object, composition: object = None) -> Composition:
    """`"adapters": [{"name": "sql@2", "weight": 0.7}, …]`, `"composition": {"method": "svd", "rank": 16}`."""
    members = []
    for param, item in _items(adapters, "adapters"):
        _only(item, ("name", "weight"), param)
        name, ref = parse_reference(item.get("name"), f"{param}.name")
        members.append(Member(name, check_weight(item.get("weight", 1.0), f"{param}.weight"), ref))
    if composition is None:
        return Composition(tuple(members))
    fields = _object(composition, "composition")
    _only(fields, ("method", *OPTION_NAMES), "composition")
    method = check_method(fields.get("method", STACK))
    given = {name: value for name, value in fields.items() if name != "method"}
    return Composition(tuple(members), method, read_options(method, given))


def of_llama_lora(lora: object) -> Composition:
    """llama.cpp's `"lora": [{"id": "sql", "scale": 0.5}, …]`, a stack. Its numeric ids mean nothing here."""
    members = []
    for param, item in _items(lora, "lora"):
        _only(item, ("id", "name", "scale"), param)
        if ("id" in item) == ("name" in item):
            raise InvalidRequest("invalid_composition", "Give either an id or a name.", param)
        key = "id" if "id" in item else "name"
        if isinstance(item[key], int):
            raise InvalidRequest(
                "invalid_name", "Adapters have no numbers here: use the name.", f"{param}.{key}"
            )
        name, ref = parse_reference(item[key], f"{param}.{key}")
        members.append(Member(name, check_weight(item.get("scale"), f"{param}.scale"), ref))
    return Composition(tuple(members))


def of_merged_adapters(merged: object) -> Composition:
    """LoRAX's `"merged_adapters": {ids, weights, merge_strategy, density, majority_sign_method}`.

    As there, weights left out or empty are 1, and the strategy left out is linear."""
    fields = _object(merged, "merged_adapters")
    _only(fields, ("ids", "weights", "merge_strategy", "density", "majority_sign_method"), "merged_adapters")
    ids = _list(fields.get("ids"), "merged_adapters.ids")
    weights = fields.get("weights")
    weights = [1.0] * len(ids) if weights in (None, []) else _list(weights, "merged_adapters.weights")
    if len(ids) != len(weights):
        raise InvalidRequest(
            "invalid_weight",
            f"There are {len(ids)} ids and {len(weights)} weights.",
            "merged_adapters.weights",
        )
    members = []
    for index, (text, weight) in enumerate(zip(ids, weights, strict=True)):
        name, ref = parse_reference(text, f"merged_adapters.ids[{index}]")
        members.append(Member(name, check_weight(weight, f"merged_adapters.weights[{index}]"), ref))
    strategy = fields.get("merge_strategy", "linear")
    if strategy not in LORAX_STRATEGIES:
        raise InvalidRequest(
            "unknown_method",
            f"The merge_strategy must be one of {', '.join(LORAX_STRATEGIES)}.",
            "merged_adapters.merge_strategy",
        )
    method = check_method(strategy)
    given = {name: fields.get(name) for name in ("density", "majority_sign_method")}
    return Composition(tuple(members), method, read_options(method, given, "merged_adapters."))


def _items(value: object, param: str) -> list[tuple[str, dict[str, object]]]:
    """(param, object) of each entry of a JSON list of objects."""
    entries = _list(value, param)
    return [(f"{param}[{index}]", _object(entry, f"{param}[{index}]")) for index, entry in enumerate(entries)]


def _list(value: object, param: str) -> list[object]:
    if isinstance(value, list) and value:
        return value
    raise InvalidRequest("invalid_composition", f"{param} must be a list with at least one entry.", param)


def _object(value: object, param: str) -> dict[str, object]:
    if isinstance(value, dict):
        return value
    raise InvalidRequest("invalid_composition", f"{param} must be a JSON object.", param)


def _only(item: dict[str, object], allowed: Iterable[str], param: str) -> None:
    for key in item:
        if key not in allowed:
            raise unknown_field(key, f"{param}.")
