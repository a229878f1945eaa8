"""Reads the composition from a request body, and makes the body that vLLM gets.

A body can name a composition in four ways: as `model`, in our own fields `adapters` and `composition`, in
llama.cpp's field `lora`, and in LoRAX's field `merged_adapters`. The fields by which clients of other servers
name one adapter are read as `model` (`foreign_fields.py`).
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, ClassVar

from annotated_types import MaxLen, MinLen
from pydantic import ConfigDict, Field, PlainValidator, WithJsonSchema, model_validator

from lora_compose.adapters.composition.composition import (
    BAD_WEIGHT,
    MAX_MEMBERS,
    METHOD_NAMES,
    OPTION_FAULTS,
    OPTION_NAMES,
    SPELLINGS,
    STACK,
    Composition,
    Density,
    MajoritySignMethod,
    Member,
    Rank,
    Seed,
    Weight,
    check_method,
    read_options,
)
from lora_compose.adapters.composition.grammar import parse
from lora_compose.adapters.errors import Code, InvalidRequest, NotFound
from lora_compose.adapters.validation import ANY, Fault, Faults, with_prefix
from lora_compose.server.compositions.foreign_fields import (
    NAMES_ELSEWHERE,
    NO_MEANING_HERE,
    name_elsewhere,
    refuse_other_names,
)
from lora_compose.server.compositions.foreign_forms import (
    LORAX_STRATEGIES,
    LlamaLora,
    MergedAdapters,
    Numbered,
    no_numbers,
)
from lora_compose.server.http.body import MISSING_NAME, Body, Reference

Method = Annotated[
    str,
    PlainValidator(partial(check_method, param=None)),
    WithJsonSchema({"type": "string", "enum": [*METHOD_NAMES, *SPELLINGS]}),
]


class MemberFields(Body):
    """An adapter and its weight."""

    name: Reference
    weight: Weight = 1.0

    @property
    def member(self) -> Member:
        name, ref = self.name
        return Member(name, self.weight, ref)


class MethodFields(Body):
    """How to combine the adapters. By default they are a stack, which is the exact sum."""

    method: Method = STACK
    rank: Rank | None = None
    density: Density | None = None
    seed: Seed | None = None
    majority_sign_method: MajoritySignMethod | None = None


FORMS = ("adapters", "lora", "merged_adapters")
EXTENSIONS = (*FORMS, "composition")
"""The fields that vLLM does not know."""
_NOT_OF_VLLM = frozenset({*EXTENSIONS, *NAMES_ELSEWHERE, *NO_MEANING_HERE})

NO_OBJECT = Fault(Code.INVALID_COMPOSITION, "{param} must be a JSON object.")


def _form(field: str) -> Faults:
    """Faults of a list of adapters.

    A list that is too long has the param that `Composition` itself reports."""
    return {
        (field, ANY): Fault(Code.INVALID_COMPOSITION, "{param} must be a list with at least one entry."),
        (field, "too_long"): Fault(
            Code.INVALID_COMPOSITION, f"A composition has at most {MAX_MEMBERS} adapters.", "adapters"
        ),
        (f"{field}[]", ANY): NO_OBJECT,
    }


def _model(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str) and value:
        return value
    raise InvalidRequest(Code.INVALID_MODEL, "model must be a string with at least one character.")


ModelText = Annotated[
    str,
    PlainValidator(_model),
    WithJsonSchema({"anyOf": [{"type": "string", "minLength": 1}, {"type": "null"}]}),
]


class CompositionFields(Body):
    """Which adapters to use: at most one of `adapters`, `lora` and `merged_adapters`. vLLM reads other
    fields."""

    model_config = ConfigDict(extra="ignore")

    model: ModelText = Field(default_factory=str)
    """`sql`, `sql@2`, `sql:0.7+polite:0.3`, `ties(sql+polite,density=0.3)` or the name of a saved
    composition. Null is the base."""
    adapters: Annotated[list[MemberFields], MinLen(1), MaxLen(MAX_MEMBERS)] | None = None
    composition: MethodFields | None = None
    lora: Annotated[list[LlamaLora], MaxLen(MAX_MEMBERS)] | None = None
    """llama.cpp's form. As in llama.cpp, an empty list is the base."""
    merged_adapters: MergedAdapters | None = None

    FAULTS: ClassVar[Faults] = {
        **_form("adapters"),
        ("adapters[].name", "missing"): MISSING_NAME,
        ("adapters[].weight", ANY): BAD_WEIGHT,
        ("composition", ANY): NO_OBJECT,
        **with_prefix("composition.", OPTION_FAULTS),
        **_form("lora"),
        ("lora", ANY): Fault(Code.INVALID_COMPOSITION, "{param} must be a list."),
        ("lora[].scale", ANY): BAD_WEIGHT,
        ("merged_adapters", ANY): NO_OBJECT,
        **_form("merged_adapters.ids"),
        ("merged_adapters.weights", ANY): Fault(
            Code.INVALID_COMPOSITION, "merged_adapters.weights must be a list."
        ),
        ("merged_adapters.weights", "too_long"): Fault(
            Code.INVALID_WEIGHT, "merged_adapters has more weights than ids. Send one weight for each id."
        ),
        ("merged_adapters.weights[]", ANY): BAD_WEIGHT,
        ("merged_adapters.merge_strategy", ANY): Fault(
            Code.UNKNOWN_METHOD, f"merge_strategy must be one of {', '.join(LORAX_STRATEGIES)}."
        ),
        **with_prefix("merged_adapters.", OPTION_FAULTS),
    }

    @model_validator(mode="before")
    @classmethod
    def _has_one_form(cls, body: object) -> object:
        if isinstance(body, dict):
            forms = [field for field in FORMS if body.get(field) is not None]
            if body.get("composition") is not None and forms != ["adapters"]:
                text = "The field composition can be used only together with the field adapters."
                raise InvalidRequest(Code.CONFLICTING_FIELDS, text, "composition")
            if len(forms) > 1:
                raise two_forms(forms[0], forms[1])
        return body

    @property
    def form(self) -> str | None:
        """The field that names the adapters, or None if only `model` can."""
        return next((field for field in FORMS if getattr(self, field) is not None), None)

    def to_composition(self, numbered: Numbered = no_numbers) -> Composition | None:
        """The composition of the fields other than `model`; None if they name no adapters."""
        if self.adapters is not None:
            return self._from_adapters(self.adapters)
        if self.lora:
            return Composition(tuple(entry.member(numbered) for entry in self.lora))
        if self.merged_adapters is not None:
            return self.merged_adapters.to_composition()
        return None

    def _from_adapters(self, adapters: list[MemberFields]) -> Composition:
        members = tuple(entry.member for entry in adapters)
        if self.composition is None:
            return Composition(members)
        fields = {name: getattr(self.composition, name) for name in OPTION_NAMES}
        method = self.composition.method
        return Composition(members, method, read_options(method, fields))


def two_forms(first: str, second: str) -> InvalidRequest:
    """The error for a body that names adapters in two ways."""
    return InvalidRequest(
        Code.CONFLICTING_FIELDS,
        f"The request names adapters in two ways: {first} and {second}. Send only one of them.",
        first,
    )


class ComposedModel(CompositionFields):
    """A composition in any of the forms: as `model`, or in one of the fields."""

    model_config = ConfigDict(extra="forbid")


SavedComposition = Callable[[str], Composition | None]


def composition_from_body(
    body: dict[str, Any], base: str, saved: SavedComposition, numbered: Numbered = no_numbers
) -> Composition | None:
    """The composition of a generating request, or None for the plain base. `body` is not changed.

    Raises InvalidRequest("unknown_field") if another field would name an adapter on another server."""
    refuse_other_names(body)
    return composition_of(CompositionFields.read(_with_model(body, base)), base, saved, numbered)


def _with_model(body: dict[str, Any], base: str) -> dict[str, Any]:
    """`body` with the name that another server's field has as `model`."""
    named = name_elsewhere(body)
    if named is None:
        return body
    field, name = named
    if body.get("model") not in (None, base, name):
        raise two_forms(field, f"model {body['model']!r:.200}")
    return {**body, "model": name}


def composition_of(
    fields: CompositionFields, base: str, saved: SavedComposition, numbered: Numbered = no_numbers
) -> Composition | None:
    """The composition, or None for the plain base. `saved` looks up a saved composition by name.

    Raises InvalidRequest if the request names it in two ways, or if its fields contradict each other, and
    NotFound for a number that `numbered` does not know."""
    model = fields.model or base
    if fields.form is None:
        return _from_model(model, base, saved)
    if model != base:
        raise two_forms(fields.form, f"model {model!r:.200}")
    return fields.to_composition(numbered)


def _from_model(model: str, base: str, saved: SavedComposition) -> Composition | None:
    if model == base:
        return None
    text = model.removeprefix(base + ":")
    if composition := saved(text):
        return composition
    try:
        return parse(text)
    except InvalidRequest as error:
        # "/models/other" is a model that this server does not have, not a composition with a syntax error.
        if error.code == Code.INVALID_NAME and not set(text) & set("+:*@("):
            raise model_not_found(text) from error
        raise


def model_not_found(name: str) -> NotFound:
    """The error that OpenAI returns for a model that the server does not have."""
    return NotFound(Code.MODEL_NOT_FOUND, f"The model {name!r:.200} does not exist.", "model")


def body_for_vllm(body: dict[str, Any], model: str) -> dict[str, Any]:
    """`body` without our fields, and with the canonical name as `model`."""
    return {key: value for key, value in body.items() if key not in _NOT_OF_VLLM} | {"model": model}
