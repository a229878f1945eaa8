"""JSON schemas of the types an operation names, ours and vLLM's, under names of their own in one document."""

from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core.core_schema import WithDefaultSchema
from typing_extensions import override

from server.engine.http_schemas import VLLM_TYPES
from server.from_request import CompositionFields
from server.openapi.operations import Operation

TEMPLATE = "#/components/schemas/{model}"
Read = tuple[str, JsonSchemaMode]


class _Generator(GenerateJsonSchema):
    @override
    def default_schema(self, schema: WithDefaultSchema) -> JsonSchemaValue:
        """None is how our models hold a field that was not given, and not a value to send."""
        found = super().default_schema(schema)
        if found.get("default", ...) is None:
            del found["default"]
        return found


class Schemas:
    """`components` is what the references point into."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        shapes: dict[Read, Any] = {_key(CompositionFields, "validation"): CompositionFields}
        for operation in operations:
            shapes |= {_key(shape, "validation"): shape for shape in (operation.body, operation.upload)}
            shapes |= {_key(a.shape, "serialization"): a.shape for a in operation.answers.values()}
        typed = [
            (*key, TypeAdapter[Any](_type_of(shape, key[1])))
            for key, shape in shapes.items()
            if shape is not None and not isinstance(shape, dict)
        ]
        self._by_key, defined = TypeAdapter.json_schemas(
            typed, ref_template=TEMPLATE, schema_generator=_Generator
        )
        self.components: dict[str, Any] = defined["$defs"]

    def of(self, shape: Any, mode: JsonSchemaMode) -> dict[str, Any]:
        """Its schema: a reference, or what it is already."""
        return shape if isinstance(shape, dict) else self._by_key[_key(shape, mode)]

    def body(self, operation: Operation) -> dict[str, Any]:
        """Of the JSON it reads: with our fields where vLLM reads the rest."""
        schema = self.of(operation.body, "validation")
        if not isinstance(operation.body, str):
            return schema
        return {"allOf": [schema, self.of(CompositionFields, "validation")]}


def _key(shape: Any, mode: JsonSchemaMode) -> Read:
    return (shape if isinstance(shape, str) else getattr(shape, "__name__", repr(shape)), mode)


def _type_of(shape: Any, mode: JsonSchemaMode) -> Any:
    """vLLM's types go by their path."""
    return VLLM_TYPES[shape][mode == "serialization"] if isinstance(shape, str) else shape
