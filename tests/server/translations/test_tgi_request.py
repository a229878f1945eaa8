"""Each field of TGI and LoRAX is passed to vLLM with its meaning, or refused."""

from typing import Any

import pytest

from lora_compose.adapters.errors import InvalidRequest
from lora_compose.server.translations.tgi_request import TGI, TgiParameters
from tests.server.app_without_engine import StandIn


def asked(path: str = "/generate", **parameters: Any) -> dict[str, Any]:
    return TGI[path].translate({"inputs": "x", "parameters": parameters}, StandIn()).body


@pytest.mark.parametrize(
    ("parameters", "fields"),
    [
        ({}, {"temperature": 0, "max_tokens": 2048}),
        ({"do_sample": False, "temperature": 1.0, "top_p": 1.0}, {"temperature": 0}),
        ({"do_sample": True}, {}),
        ({"temperature": 0.0}, {"temperature": 0.0}),
        ({"temperature": 0.7, "top_p": 0.9, "top_k": 5}, {"temperature": 0.7, "top_p": 0.9, "top_k": 5}),
        (
            {"max_new_tokens": 3, "stop": ["b"]},
            {"max_tokens": 3, "stop": ["b"], "include_stop_str_in_output": True},
        ),
        ({"ignore_eos_token": True, "seed": 7}, {"ignore_eos": True, "seed": 7}),
        ({"truncate": 3}, {"truncate_prompt_tokens": 3, "truncation_side": "left"}),
        (
            {"repetition_penalty": 1.2, "frequency_penalty": 0.1},
            {"repetition_penalty": 1.2, "frequency_penalty": 0.1},
        ),
        ({"grammar": {"type": "regex", "value": "a+"}}, {"structured_outputs": {"regex": "a+"}}),
        (
            {"grammar": {"type": "json", "value": {"type": "object"}}},
            {"structured_outputs": {"json": {"type": "object"}}},
        ),
        (
            {"response_format": {"type": "json_object", "schema": {"type": "object"}}},
            {"structured_outputs": {"json": {"type": "object"}}},
        ),
        ({"details": True}, {"logprobs": 0, "return_token_ids": True}),
        (
            {
                "best_of": 1,
                "watermark": False,
                "typical_p": 1.0,
                "top_n_tokens": 0,
                "return_k_alternatives": None,
            },
            {},
        ),
    ],
)
def test_a_field_has_its_meaning(parameters: dict[str, Any], fields: dict[str, Any]) -> None:
    body = asked(**parameters)
    assert {name: body.get(name) for name in fields} == fields


def test_sampling_without_a_temperature_has_the_default_of_the_base() -> None:
    assert "temperature" not in asked(do_sample=True)


@pytest.mark.parametrize(
    "parameters",
    [
        {"best_of": 2},
        {"typical_p": 0.5},
        {"watermark": True},
        {"top_n_tokens": 3},
        {"return_k_alternatives": 3},
        {"apply_chat_template": True},
        {"grammar": {"type": "gbnf", "value": "root"}},
        {"grammar": {"type": "regex"}},
        {"response_format": {"type": "json_schema"}},
    ],
)
def test_what_would_change_the_answer_is_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        asked(**parameters)
    assert refusal.value.param == f"parameters.{next(iter(parameters))}"


def test_a_stream_has_no_log_probabilities_of_the_prompt() -> None:
    with pytest.raises(InvalidRequest, match="decoder_input_details"):
        asked("/generate_stream", decoder_input_details=True)


def test_a_null_field_counts_as_missing() -> None:
    assert asked("/generate", **dict.fromkeys(TgiParameters.model_fields)) == asked()
