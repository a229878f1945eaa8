"""A field that would name an adapter on another server is refused, and other fields are left to vLLM."""

from time import thread_time
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from lora_compose.adapters.errors import InvalidRequest
from lora_compose.server.compositions.foreign_fields import (
    CONTAINERS,
    NAMES_ELSEWHERE,
    OURS,
    refuse_other_names,
)
from lora_compose.server.engine.frontend.api_types import VLLM_TYPES
from lora_compose.server.paths import COMPOSING, GENERATING, NAMING

FOREIGN: tuple[str, ...] = (
    *(
        "adapterId",
        "adapter",
        "adapter_path",
        "adapter_weights",
    ),
    *("lora_id", "lora_request", "lora_names", "lora_paths", "lora_config", "lora_task_id", "lora_weights"),
    *("lora_adapter", "lora_int_id", "lora_modules", "lora_scale", "loraPath", "loras", "LoRA", "use_lora"),
    *("active_adapters", "multi_lora", "peft_model_id", "merge_strategy", "combination_type"),
)
MISSPELT: tuple[str, ...] = (
    *("adapters ", "adaptors", "adapetrs", "adaters", "Adapters", "adpaters", "adapter_ids", "compositions"),
    *("composition_", "compositon", "compose", "merged_adapter", "mergedAdapters", "merged_adaptors", "lroa"),
    *("merged_adaters", "weights", "weight", "wieghts"),
)
OPENAI = (
    *("conversation", "functions", "function_call", "modalities", "moderation", "prediction", "verbosity"),
    *("prompt_cache_retention", "safety_identifier", "web_search_options", "best_of", "prompt"),
)
"""OpenAI's fields that vLLM does not have."""
UNRELATED = (
    "adaptive_target",
    "exploration",
    "mode",
    "models_seen",
    "adaptation",
    "colour",
    "composite_score",
    "",
)


def refused(body: dict[str, Any]) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refusal:
        refuse_other_names(body)
    assert refusal.value.code == "unknown_field"
    return refusal.value


@pytest.mark.parametrize("field", FOREIGN + MISSPELT)
def test_a_field_that_would_name_an_adapter_is_refused(field: str) -> None:
    for value in ("roll", 7, [], {}, ["roll"], {"name": "roll"}, "", 0, False):
        error = refused({"model": "testbed-base", field: value})
        assert error.param == field
        assert '"model": "NAME:0.7"' in error.message
    refuse_other_names({field: None})


@pytest.mark.parametrize("container", CONTAINERS)
def test_it_is_refused_inside_the_objects_of_other_clients_too(container: str) -> None:
    for field in ("adapter_id", "lora_path", "adaptors", *OURS):
        assert refused({container: {"top_k": 3, field: "roll"}}).param == f"{container}.{field}"
        refuse_other_names({container: {field: None}})
    others: tuple[Any, ...] = (None, [], "adapter_id", {}, {"scale": 2.0, "temperature": 1})
    for other in others:
        refuse_other_names({container: other})


@pytest.mark.parametrize("field", ["method", "rank", "density", "majority_sign_method"])
def test_an_option_outside_composition_is_refused(field: str) -> None:
    error = refused({"adapters": [{"name": "roll"}], field: 1})
    assert f"composition.{field}" in error.message


@pytest.mark.parametrize("field", ["modle", "Model", "models", "model_id", "model_name", "modelName"])
def test_a_misspelt_model_is_refused_if_nothing_else_names_one(field: str) -> None:
    assert refused({field: "roll"}).param == field
    for named in ({"model": "roll"}, {"adapters": [{"name": "roll"}]}):
        refuse_other_names(named | {field: "roll"})


def fields_of_vllm() -> set[str]:
    """The names of all fields that vLLM reads on the routes that take a composition."""
    schemas = [TypeAdapter(VLLM_TYPES[path][0]).json_schema() for path in COMPOSING]
    every = [one for schema in schemas for one in (schema, *schema.get("$defs", {}).values())]
    return {field for one in every for field in one.get("properties", {})}


def test_fields_of_vllm_and_openai_are_left_alone() -> None:
    known = fields_of_vllm()
    assert {"temperature", "cache_salt", "vllm_xargs"} <= known
    for field in known | set(OPENAI) | set(UNRELATED):
        refuse_other_names({field: 1})


def test_a_body_full_of_fields_is_checked_fast() -> None:
    body = {f"field_{i}": 1 for i in range(150_000)}  # the most that fit into 2 MiB
    began = thread_time()
    refuse_other_names(body)
    assert thread_time() - began < 0.5  # about 0.1


@pytest.mark.parametrize("path", [*GENERATING, *NAMING])
def test_no_route_answers_from_the_base(plain_http: httpx.Client, path: str) -> None:
    body = {"model": "testbed-base", "prompt": "x", "messages": [], "input": "x", "tokens": [1]}
    for field in ("lora_request", "lora_task_id", "adaptors"):
        reply = plain_http.post(path, json=body | {field: "roll"})
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "unknown_field")
    nothing: list[dict[str, Any]] = [{"adapter_id": None}, {"lora": []}, {"model": None}]
    for none in nothing:
        reply = plain_http.post(path, json=body | none)
        assert (reply.status_code, reply.json()["model"]) == (200, "testbed-base")


@pytest.mark.parametrize("path", [*GENERATING, *NAMING])
def test_a_field_with_a_name_is_read_as_model(plain_http: httpx.Client, path: str) -> None:
    body = {"prompt": "x", "messages": [], "input": "x", "tokens": [1]}
    for field in NAMES_ELSEWHERE:
        for model in ({}, {"model": None}, {"model": "testbed-base"}, {"model": "roll"}):
            reply = plain_http.post(path, json=body | model | {field: "roll"})
            assert reply.headers["x-lora-composition"] == "roll@1"
    several = {
        "lora_path": ["roll:0.5+upper"] * 2,
        "lora_name": None,
        "adapter_source": "local",
        "api_token": "x",
    }
    reply = plain_http.post(path, json=body | several)
    assert reply.headers["x-lora-composition"] == "roll@1:0.5+upper@1"


WRONG_NAMES: list[tuple[dict[str, Any], str, int]] = [
    ({"adapter_id": "nosuch"}, "model_not_found", 404),
    ({"adapter_id": ""}, "invalid_name", 400),
    ({"adapter_id": 7}, "invalid_name", 400),
    ({"lora_path": []}, "invalid_name", 400),
    ({"lora_path": ["roll", "upper"]}, "invalid_name", 400),
    ({"lora_path": ["roll", None]}, "invalid_name", 400),
    ({"lora_path": {"roll": 1}}, "invalid_name", 400),
    ({"lora_path": "/srv/roll"}, "model_not_found", 404),
    ({"adapter_id": "roll", "lora_path": "upper"}, "conflicting_fields", 400),
    ({"adapter_id": "roll", "model": "upper"}, "conflicting_fields", 400),
    ({"adapter_id": "roll", "adapters": [{"name": "roll"}]}, "conflicting_fields", 400),
    ({"adapter_id": "roll", "adapter_source": "hub"}, "source_not_allowed", 400),
    ({"adapter_source": "s3"}, "source_not_allowed", 400),
]


@pytest.mark.parametrize(("fields", "code", "status"), WRONG_NAMES)
def test_a_wrong_name_is_never_answered_by_the_base(
    plain_http: httpx.Client, fields: dict[str, Any], code: str, status: int
) -> None:
    reply = plain_http.post("/v1/completions", json={"model": "testbed-base", "prompt": "x"} | fields)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
