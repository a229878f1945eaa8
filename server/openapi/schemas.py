"""JSON schemas of the types an operation names, ours and vLLM's, under names of their own in one document."""

from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from server.engine.http_schemas import VLLM_TYPES
from server.from_request import CompositionFields
from server.openapi.operations import Operation

TEMPLATE = "#/components/schemas/{model}"


class Schemas:
    """`components` is what the references point into."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        read: list[Any] = [CompositionFields]
        written: list[Any] = []
        for operation in operations:
            read += [operation.body, operation.upload]
            written += [answer.shape for answer in operation.answers.values()]
        self._by_shape, defined = TypeAdapter.json_schemas(
            [*_typed(read, "validation"), *_typed(written, "serialization")], ref_template=TEMPLATE
        )
        self.components: dict[str, Any] = defined["$defs"]

    def of(self, shape: Any, mode: JsonSchemaMode) -> dict[str, Any]:
        """Its schema: a reference, or what it is already."""
        return shape if isinstance(shape, dict) else self._by_shape[shape, mode]

    def body(self, operation: Operation) -> dict[str, Any]:
        """Of the JSON it reads: with our fields where vLLM reads the rest."""
        schema = self.of(operation.body, "validation")
        if not isinstance(operation.body, str):
            return schema
        return {"allOf": [schema, self.of(CompositionFields, "validation")]}


def _typed(shapes: Iterable[Any], mode: JsonSchemaMode) -> list[tuple[Any, JsonSchemaMode, TypeAdapter[Any]]]:
    """Each type once. vLLM's go by their path."""
    types: dict[Any, Any] = {shape: shape for shape in shapes if isinstance(shape, str | type)}
    types |= {path: VLLM_TYPES[path][mode == "serialization"] for path in types if isinstance(path, str)}
    return [(shape, mode, TypeAdapter(found)) for shape, found in types.items()]
