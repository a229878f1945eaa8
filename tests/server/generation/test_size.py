"""A request that is too large to be served is refused before its parts are copied and checked one by one."""

import gc
from typing import Any

import pytest

from lora_compose.adapters.errors import InvalidRequest
from lora_compose.server.generation.request_checks import MAX_FIELDS, check_size
from lora_compose.server.http.body import parse_object
from tests.server.app_without_engine import AppWithoutEngine


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": [7] * 8},
        {"prompt": [[7] * 8, [7]]},
        {"prompt": [7] * 9, "truncate_prompt_tokens": 4},
        {"prompt": "x" * 9},
        {"prompt": ["x" * 9]},
        {"prompt": []},
        {"prompt": [{"prompt_token_ids": [7] * 9}]},
        {"messages": [{}] * 9},
        {str(number): 1 for number in range(MAX_FIELDS)},
    ],
    ids=repr,
)
def test_what_may_fit_is_left_to_vllm(body: dict[str, Any]) -> None:
    check_size(body, max_model_len=8)


@pytest.mark.parametrize("prompt", [[7] * 9, [[7], [7] * 9]])
def test_a_prompt_of_more_ids_than_the_context_is_refused(prompt: list[Any]) -> None:
    with pytest.raises(InvalidRequest, match="has 9 tokens") as refused:
        check_size({"prompt": prompt}, max_model_len=8)
    assert (refused.value.code, refused.value.param) == ("invalid_request", "prompt")


def test_a_body_with_thousands_of_fields_is_refused(plain: AppWithoutEngine) -> None:
    body = {"model": "testbed-base", "prompt": "a"} | {f"u{number}": 1 for number in range(MAX_FIELDS)}
    with plain.client() as client:
        refused = client.post("/v1/completions", json=body)
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "invalid_request"


def test_no_collection_runs_while_a_body_is_parsed() -> None:
    """Each of them would look at all objects that were made so far."""
    runs: list[str] = []

    def note(phase: str, _: dict[str, int]) -> None:
        runs.append(phase)

    gc.collect()
    gc.callbacks.append(note)
    try:
        parsed = parse_object(b'{"a": [' + b"[1]," * 100_000 + b"[1]]}")
        during = len(runs)
    finally:
        gc.callbacks.remove(note)
    assert len(parsed["a"]) == 100_001
    assert during <= 2  # one may start when the parser has returned
    assert gc.isenabled()
