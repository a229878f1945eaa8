"""Which composition a request's JSON asks for, in any of the four ways it may say so."""

from collections.abc import Callable
from typing import Any

from adapters.composition import Composition
from adapters.composition_fields import of_fields, of_llama_lora, of_merged_adapters
from adapters.composition_grammar import parse
from adapters.errors import InvalidRequest, NotFound

FIELDS = ("adapters", "lora", "merged_adapters")
EXTENSIONS = (*FIELDS, "composition")

SavedComposition = Callable[[str], Composition | None]


def asked_composition(body: dict[str, Any], base: str, saved: SavedComposition) -> Composition | None:
    """The composition, or None for the plain base. `saved` looks up a saved composition by name.

    Raises InvalidRequest where the request says it twice, or not well. `body` is not changed.
    """
    model = body.get("model", base)
    if not isinstance(model, str) or not model:
        raise InvalidRequest("invalid_model", "model must be a string that is not empty.", "model")
    given = [name for name in FIELDS if body.get(name) is not None]
    if body.get("composition") is not None and given != ["adapters"]:
        raise InvalidRequest("conflicting_fields", "composition goes with adapters only.", "composition")
    if not given:
        return _of_model(model, base, saved)
    if len(given) > 1 or model != base:
        both = given[1] if len(given) > 1 else f"model {model!r:.200}"
        raise InvalidRequest(
            "conflicting_fields",
            f"The request names adapters twice, by {given[0]} and by {both}. Keep one; with {given[0]}, "
            f"model is {base!r}.",
            given[0],
        )
    if given == ["adapters"]:
        return of_fields(body["adapters"], body.get("composition"))
    return of_llama_lora(body["lora"]) if given == ["lora"] else of_merged_adapters(body["merged_adapters"])


def _of_model(model: str, base: str, saved: SavedComposition) -> Composition | None:
    if model == base:
        return None
    text = model.removeprefix(base + ":")
    if composition := saved(text):
        return composition
    try:
        return parse(text)
    except InvalidRequest as error:
        if error.code == "invalid_name" and not set(text) & set("+:@("):
            raise model_not_found(
                text
            ) from error  # "org/other-model": a model we do not have, not bad grammar
        raise


def model_not_found(name: str) -> NotFound:
    """OpenAI's answer to a model nobody serves."""
    return NotFound("model_not_found", f"The model {name!r:.200} does not exist.", "model")


def without_extensions(body: dict[str, Any], model: str) -> dict[str, Any]:
    """The body vLLM gets: our fields taken out, `model` the canonical name."""
    return {key: value for key, value in body.items() if key not in EXTENSIONS} | {"model": model}
