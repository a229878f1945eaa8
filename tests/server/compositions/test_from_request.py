"""The four ways to name a composition have the same meaning."""

from typing import Any

import pytest

from lora_compose.adapters.composition.composition import Composition
from lora_compose.adapters.composition.grammar import parse
from lora_compose.adapters.errors import InvalidRequest, NotFound
from lora_compose.server.compositions.from_request import body_for_vllm, composition_from_body

MEMBERS = [{"name": "sql", "weight": 0.7}, {"name": "polite", "weight": 0.3}]


def ask(body: dict[str, Any], saved: dict[str, Composition] | None = None) -> Composition | None:
    return composition_from_body(body, "base", (saved or {}).get)


@pytest.mark.parametrize(
    "body",
    [
        {"model": "sql:0.7+polite:0.3"},
        {"model": "base:sql:0.7+polite:0.3"},
        {"model": "base", "adapters": MEMBERS},
        {"adapters": MEMBERS, "composition": {"method": "stack"}},
        {"model": "base", "lora": [{"id": "sql", "scale": 0.7}, {"name": "polite", "scale": 0.3}]},
    ],
)
def test_every_form_of_a_stack_means_the_same(body: dict[str, Any]) -> None:
    assert ask(body) == parse("sql:0.7+polite:0.3")


def test_merged_adapters_is_lorax_s_merge() -> None:
    merged = {"ids": ["sql", "polite"], "weights": [0.7, 0.3], "merge_strategy": "ties", "density": 0.5}
    assert ask({"model": "base", "merged_adapters": merged}) == parse("ties(sql:0.7+polite:0.3,density=0.5)")


def test_the_base_s_name_or_no_model_is_the_base() -> None:
    bodies: list[dict[str, Any]] = [
        {"model": "base"},
        {},
        {"model": None},
        {"lora": []},
        {"model": None, "lora": []},
    ]
    for body in bodies:
        assert ask(body) is None


def test_a_saved_composition_goes_by_its_name() -> None:
    saved = parse("sql@1+polite@2")
    assert ask({"model": "bot"}, {"bot": saved}) is saved


@pytest.mark.parametrize(
    "body",
    [
        {"model": "sql", "adapters": MEMBERS},
        {"model": "base", "adapters": MEMBERS, "lora": []},
        {"model": "base", "lora": [{"id": "a", "scale": 1}], "composition": {"method": "svd"}},
        {"model": "sql", "composition": {"method": "svd"}},
        {"model": "sql", "lora": []},
    ],
)
def test_two_forms_at_once_are_refused(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        ask(body)
    assert refused.value.code == "conflicting_fields"


@pytest.mark.parametrize("model", [7, "", ["sql"]])
def test_a_model_that_is_no_string_is_refused(model: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        ask({"model": model})
    assert refused.value.code == "invalid_model"


def test_another_server_s_model_is_not_found_rather_than_bad_grammar() -> None:
    with pytest.raises(NotFound) as refused:
        ask({"model": "/models/meta-llama/Llama-3-8B"})
    assert refused.value.code == "model_not_found"


def test_vllm_never_sees_our_fields() -> None:
    body = {"model": "base", "adapters": MEMBERS, "composition": {}, "prompt": "x"}
    assert body_for_vllm(body, "sql@1") == {"model": "sql@1", "prompt": "x"}
