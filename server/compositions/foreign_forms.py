"""The forms in which llama.cpp and LoRAX name a composition, as fields of a request body."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal, Self, get_args

from annotated_types import MaxLen, MinLen
from pydantic import PlainValidator, WithJsonSchema, model_validator

from lora_compose.adapters.composition.composition import (
    ELECTS_SIGN,
    MAX_MEMBERS,
    NEEDS_DENSITY,
    Composition,
    Density,
    MajoritySignMethod,
    Member,
    Weight,
    read_options,
)
from lora_compose.adapters.composition.grammar import parse_reference
from lora_compose.adapters.errors import Code, InvalidRequest, NotFound
from lora_compose.adapters.names import REFERENCE_PATTERN
from lora_compose.adapters.registry.store import Version
from lora_compose.server.http.body import Body, Reference, matching

Numbered = Callable[[int], Version | None]
"""Looks up a version by its number in `GET /lora-adapters`."""


def no_numbers(_: int) -> Version | None:
    """The look-up that knows no numbers."""
    return None


def _llama_id(value: object) -> int | tuple[str, str | None]:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return parse_reference(value, None)


LlamaId = Annotated[
    int | tuple[str, str | None] | None,
    PlainValidator(_llama_id),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": REFERENCE_PATTERN}, {"type": "integer"}]}),
]
LlamaName = Annotated[
    tuple[str, str | None] | None,
    PlainValidator(partial(parse_reference, param=None)),
    matching(REFERENCE_PATTERN),
]


class LlamaLora(Body):
    """llama.cpp's form. Exactly one of `id` and `name` is required."""

    id: LlamaId = None
    """A name, or a number from `GET /lora-adapters`."""
    name: LlamaName = None
    scale: Weight

    @model_validator(mode="after")
    def _has_one_name(self) -> Self:
        if (self.id is None) == (self.name is None):
            raise InvalidRequest(
                Code.INVALID_COMPOSITION, "An entry of lora must have an id or a name, and not both."
            )
        return self

    def member(self, numbered: Numbered) -> Member:
        """Raises NotFound("model_not_found") if `id` is a number that is not listed."""
        reference = self.name if self.id is None else self.id
        assert reference is not None
        if not isinstance(reference, int):
            return Member(reference[0], self.scale, reference[1])
        version = numbered(reference)
        if version is None:
            text = f"There is no adapter with the id {reference!s:.40}. GET /lora-adapters lists the ids."
            raise NotFound(Code.MODEL_NOT_FOUND, text, "lora")
        return Member(version.name, self.scale, str(version.number))


LoraxStrategy = Literal["linear", "ties", "dare_linear", "dare_ties"]
LORAX_STRATEGIES: tuple[LoraxStrategy, ...] = get_args(LoraxStrategy)


class MergedAdapters(Body):
    """LoRAX's form. As in LoRAX, missing or empty weights are 1, and the default strategy is linear."""

    ids: Annotated[list[Reference], MinLen(1), MaxLen(MAX_MEMBERS)]
    weights: Annotated[list[Weight], MaxLen(MAX_MEMBERS)] | None = None
    merge_strategy: LoraxStrategy | None = None
    density: Density | None = None
    majority_sign_method: MajoritySignMethod | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_unused_options(cls, fields: object) -> object:
        """LoRAX's client sends `density` with every strategy. LoRAX ignores it where it has no use."""
        if not isinstance(fields, dict):
            return fields
        strategy = fields.get("merge_strategy") or "linear"
        used = {"density": NEEDS_DENSITY, "majority_sign_method": ELECTS_SIGN}
        unused = {name for name, by in used.items() if strategy in LORAX_STRATEGIES and strategy not in by}
        return {name: value for name, value in fields.items() if name not in unused}

    @model_validator(mode="after")
    def _has_a_weight_for_each(self) -> Self:
        if self.weights and len(self.weights) != len(self.ids):
            counts = f"{len(self.ids)} ids and {len(self.weights)} weights"
            text = f"merged_adapters has {counts}. Send one weight for each id."
            raise InvalidRequest(Code.INVALID_WEIGHT, text, "weights")
        return self

    @property
    def members(self) -> tuple[Member, ...]:
        weights = self.weights or [1.0] * len(self.ids)
        return tuple(Member(name, weight, ref) for (name, ref), weight in zip(self.ids, weights, strict=True))

    def to_composition(self) -> Composition:
        """Raises InvalidRequest if the options do not belong to the strategy."""
        strategy = self.merge_strategy or "linear"
        fields = {"density": self.density, "majority_sign_method": self.majority_sign_method}
        return Composition(self.members, strategy, read_options(strategy, fields, "merged_adapters."))
