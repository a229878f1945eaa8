"""JSON schemas of the types an operation names, ours and vLLM's, under names of their own in one document."""

from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from server.engine.http_schemas import VLLM_TYPES
from server.openapi import bodies
from server.openapi.operations import FILES, Operation

TEMPLATE = "#/components/schemas/{model}"
Read = tuple[str, JsonSchemaMode]


class Schemas:
    """`components` is what the references point into."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        shapes: dict[Read, Any] = {("CompositionFields", "validation"): bodies.CompositionFields}
        for operation in operations:
            shapes |= {_key(shape, "validation"): shape for shape in (operation.body, operation.upload)}
            shapes |= {_key(a.shape, "serialization"): a.shape for a in operation.answers.values()}
        typed = [
            (*key, TypeAdapter[Any](_type_of(shape, key[1])))
            for key, shape in shapes.items()
            if shape is not None and not isinstance(shape, dict)
        ]
        self._by_key, defined = TypeAdapter.json_schemas(typed, ref_template=TEMPLATE)
        self.components: dict[str, Any] = defined["$defs"]
        _name_parts(self.components["AdapterUpload"])

    def of(self, shape: Any, mode: JsonSchemaMode) -> dict[str, Any]:
        """Its schema: a reference, or what it is already."""
        return shape if isinstance(shape, dict) else self._by_key[_key(shape, mode)]

    def body(self, operation: Operation) -> dict[str, Any]:
        """Of the JSON it reads: with our fields where vLLM reads the rest."""
        schema = self.of(operation.body, "validation")
        if not isinstance(operation.body, str):
            return schema
        return {"allOf": [schema, self.of(bodies.CompositionFields, "validation")]}


def _key(shape: Any, mode: JsonSchemaMode) -> Read:
    return (shape if isinstance(shape, str) else getattr(shape, "__name__", repr(shape)), mode)


def _type_of(shape: Any, mode: JsonSchemaMode) -> Any:
    """vLLM's types go by their path."""
    return VLLM_TYPES[shape][mode == "serialization"] if isinstance(shape, str) else shape


def _name_parts(upload: dict[str, Any]) -> None:
    """A file in a form is its bytes, as they are."""
    upload["additionalProperties"] = False
    for name, media in FILES.items():
        upload["properties"][name] = {"type": "string", "format": "binary", "contentMediaType": media}
