"""The document matches the code: routes, fields, codes and examples."""

import json
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from lora_compose.server.api.error_codes import ERROR_CODES
from lora_compose.server.api.openapi_document import document
from lora_compose.server.api.operations import OPERATIONS
from lora_compose.server.openapi_page import every_operation

ROUTES = every_operation()


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    return document(ROUTES)


def operations(told: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, one) for path, methods in told["paths"].items() for method, one in methods.items()]


def test_every_route_has_an_operation_and_every_operation_a_route() -> None:
    assert {(one.method, one.path) for one in ROUTES} == OPERATIONS.keys()


def test_the_server_tells_what_the_code_says(http: httpx.Client, told: dict[str, Any]) -> None:
    served = http.get("/openapi.json").json()
    assert served["paths"] == json.loads(json.dumps(told["paths"]))
    # vLLM's types are left out, because pydantic names and orders some of them by the hash of a string.
    for name in ("Error", "CompositionFields", "AdapterOffer"):
        assert served["components"]["schemas"][name] == told["components"]["schemas"][name]


def test_every_operation_has_a_name_of_its_own_and_says_what_it_does(told: dict[str, Any]) -> None:
    names = [one["operationId"] for _, _, one in operations(told)]
    assert len(set(names)) == len(names)
    assert [one["operationId"] for _, _, one in operations(told) if len(one["summary"].split()) < 3] == []


def test_every_reference_points_at_something(told: dict[str, Any]) -> None:
    text = json.dumps(told)
    named = {part.partition('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert named <= told["components"]["schemas"].keys()


def test_every_schema_is_one_and_every_example_fits_it(told: dict[str, Any]) -> None:
    examples = 0
    for path, method, one in operations(told):
        for media in one.get("requestBody", {}).get("content", {}).values():
            validator = Draft202012Validator({**media["schema"], "components": told["components"]})
            validator.check_schema(validator.schema)
            for example in media.get("examples", {}).values():
                examples += 1
                assert list(validator.iter_errors(example["value"])) == [], (path, method)
    assert examples > 15


def test_every_code_of_the_document_belongs_to_an_operation_or_to_what_is_none() -> None:
    of_operations = frozenset().union(*(one.codes for one in OPERATIONS.values()))
    assert ERROR_CODES.keys() - of_operations == {"method_not_allowed"}


def test_what_a_route_does_not_read_is_no_field(told: dict[str, Any]) -> None:
    for name in ("AdapterOffer", "AliasTarget", "AdapterUpload", "NamedComposition", "BenchmarkFields"):
        assert told["components"]["schemas"][name]["additionalProperties"] is False
    for name in ("LoadAdapter", "UnloadAdapter"):  # vLLM ignores other fields here
        assert "additionalProperties" not in told["components"]["schemas"][name]
