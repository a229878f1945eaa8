from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.composition import Composition
from adapters.composition_fields import of_fields, of_llama_lora, of_merged_adapters
from adapters.composition_grammar import parse
from adapters.errors import InvalidRequest
from tests.adapters.compositions import compositions


def as_fields(composition: Composition) -> tuple[list[dict[str, object]], dict[str, object]]:
    """The JSON fields a client would send for `composition`."""
    adapters: list[dict[str, object]] = [
        {"name": member.id, "weight": member.weight} for member in composition.members
    ]
    options = {
        name: value for name, value in vars(composition.options).items() if value not in (None, 0, "total")
    }
    return adapters, {"method": composition.method, **options}


@given(compositions())
def test_the_json_fields_say_the_same_as_the_text(composition: Composition) -> None:
    adapters, options = as_fields(composition)
    assert of_fields(adapters, options) == parse(composition.canonical)


def test_a_weight_left_out_is_one_and_a_method_left_out_is_stack() -> None:
    adapters = [{"name": "sql"}, {"name": "polite@prod", "weight": -2}]
    assert of_fields(adapters) == of_fields(adapters, {}) == parse("sql+polite@prod:-2")


@pytest.mark.parametrize(
    ("adapters", "composition", "code", "param"),
    [
        (None, None, "invalid_composition", "adapters"),
        ([], None, "invalid_composition", "adapters"),
        ({"name": "sql"}, None, "invalid_composition", "adapters"),
        (["sql"], None, "invalid_composition", "adapters[0]"),
        ([{"name": "a"}, {"weight": 1}], None, "invalid_name", "adapters[1].name"),
        ([{"name": "a", "scale": 1}], None, "unknown_field", "adapters[0].scale"),
        ([{"name": "a", "weight": "0.5"}], None, "invalid_weight", "adapters[0].weight"),
        ([{"name": "a", "weight": None}], None, "invalid_weight", "adapters[0].weight"),
        ([{"name": "a", "weight": True}], None, "invalid_weight", "adapters[0].weight"),
        ([{"name": "a"}, {"name": "a"}], None, "duplicate_member", "adapters"),
        ([{"name": "a"}], "ties", "invalid_composition", "composition"),
        ([{"name": "a"}], {"method": "slerp"}, "unknown_method", "composition.method"),
        ([{"name": "a"}], {"method": "ties"}, "missing_density", "composition.density"),
        ([{"name": "a"}], {"rank": 4}, "invalid_rank", "composition.rank"),
        ([{"name": "a"}], {"ranks": 4}, "unknown_field", "composition.ranks"),
        ([{"name": "a"}], {"\ud800": 4}, "unknown_field", "composition.\\ud800"),
    ],
)
def test_bad_fields_are_refused_by_name(adapters: object, composition: object, code: str, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        of_fields(adapters, composition)
    assert (refused.value.code, refused.value.param) == (code, param)


def test_llama_cpp_scales_are_the_weights_of_a_stack() -> None:
    lora = [{"id": "sql@2", "scale": 0.5}, {"name": "polite", "scale": 1}]
    assert of_llama_lora(lora) == parse("polite+sql@2:0.5")


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        ({"id": 0, "scale": 1}, "invalid_name"),
        ({"id": "a", "name": "a", "scale": 1}, "invalid_composition"),
        ({"scale": 1}, "invalid_composition"),
        ({"id": "a"}, "invalid_weight"),
        ({"id": "a", "weight": 1}, "unknown_field"),
    ],
)
def test_a_llama_cpp_entry_needs_a_name_and_a_scale(entry: dict[str, Any], code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        of_llama_lora([entry])
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("merged", "text"),
    [
        ({"ids": ["a", "b"]}, "linear(a+b)"),
        ({"ids": ["a", "b@2"], "weights": [0.5, 2], "merge_strategy": "linear"}, "linear(a:0.5+b@2:2)"),
        (
            {
                "ids": ["a"],
                "weights": [],
                "merge_strategy": "ties",
                "density": 0.2,
                "majority_sign_method": "frequency",
            },
            "ties(a,density=0.2,majority_sign_method=frequency)",
        ),
        ({"ids": ["a"], "merge_strategy": "dare_linear", "density": 0.5}, "dare_linear(a,density=0.5)"),
    ],
)
def test_lorax_merges_mean_ours(merged: dict[str, Any], text: str) -> None:
    assert of_merged_adapters(merged) == parse(text)


@pytest.mark.parametrize(
    ("merged", "code"),
    [
        ({}, "invalid_composition"),
        ({"ids": []}, "invalid_composition"),
        ({"ids": "a"}, "invalid_composition"),
        ({"ids": [3]}, "invalid_name"),
        ({"ids": ["a"], "weights": [1, 2]}, "invalid_weight"),
        ({"ids": ["a"], "weights": 0}, "invalid_composition"),
        ({"ids": ["a"], "merge_strategy": "svd"}, "unknown_method"),
        ({"ids": ["a"], "merge_strategy": "ties"}, "missing_density"),
        ({"ids": ["a"], "rank": 4}, "unknown_field"),
    ],
)
def test_a_bad_lorax_merge_is_refused(merged: dict[str, Any], code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        of_merged_adapters(merged)
    assert refused.value.code == code


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "ids", "weight", "id"]), inner)
    ),
    max_leaves=8,
)


@given(JSON)
def test_any_json_is_a_composition_or_an_invalid_request(value: object) -> None:
    for read in (of_fields, of_llama_lora, of_merged_adapters):
        try:
            composition = read(value)
        except InvalidRequest:
            continue
        assert parse(composition.canonical) == composition
