"""The strict base of the models of our JSON bodies, and the types that several of them use.

A model is the only parser of its body and the source of its schema in the OpenAPI document. Every refusal is
an InvalidRequest by the model's table `FAULTS`; see `adapters.validation`.
"""

from typing import Annotated, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError

from adapters.composition_grammar import parse_reference
from adapters.names import ALIAS_PATTERN, NAME_PATTERN, REFERENCE_PATTERN, check_alias, check_name
from adapters.validation import Fault, Faults, checked, fault_of, refusal, unknown_field


class Body(BaseModel):
    """A JSON object. A field that a model does not have is refused before the others are looked at."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
    FAULTS: ClassVar[Faults] = {}

    @classmethod
    def read(cls, body: object) -> Self:
        """The parsed JSON `body` as this model, or InvalidRequest."""
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            raise refusal(error, cls.FAULTS) from error

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Without a default of None: a model holds None for a field that was not given."""
        schema = handler(core_schema)
        for field in handler.resolve_ref_schema(schema)["properties"].values():
            if field.get("default", ...) is None:
                del field["default"]
        return schema

    @model_validator(mode="before")
    @classmethod
    def _has_no_other_field(cls, body: object) -> object:
        """Stops at the first: pydantic would collect all of them, and a hostile body may have millions."""
        if isinstance(body, dict) and cls.model_config["extra"] == "forbid":
            for field in body:
                if field not in cls.model_fields:
                    raise fault_of(unknown_field(field))
        return body


def text_of(value: object) -> str:
    """Any string. pydantic's own would refuse half a surrogate pair, which our checks report better."""
    if isinstance(value, str):
        return value
    raise PydanticKnownError("string_type")


def _name(value: object) -> str:
    return check_name(value, None)


def matching(pattern: str) -> WithJsonSchema:
    """The schema of a string that a check of ours holds to `pattern`."""
    return WithJsonSchema({"type": "string", "pattern": pattern})


TEXT_SCHEMA = WithJsonSchema({"type": "string"})
Text = Annotated[str, checked(text_of), TEXT_SCHEMA]
Name = Annotated[str, checked(_name), matching(NAME_PATTERN)]
Alias = Annotated[str, checked(check_alias), matching(ALIAS_PATTERN)]
Reference = Annotated[
    tuple[str, str | None],
    checked(lambda value: parse_reference(value, None)),
    matching(REFERENCE_PATTERN),
]
"""`name`, `name@2` or `name@alias`, as (name, ref)."""
MISSING_NAME = Fault("invalid_name", "The name is missing.")
