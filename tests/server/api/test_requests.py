"""Hostile bodies, read by the models of our routes."""

import re
from time import perf_counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_compose.adapters.composition.composition import Composition
from lora_compose.adapters.composition.grammar import parse
from lora_compose.adapters.errors import InvalidRequest
from lora_compose.adapters.names import REFERENCE_PATTERN
from lora_compose.adapters.validation import OTHER
from lora_compose.server.api.requests import (
    AdapterOffer,
    AdapterUpload,
    AliasTarget,
    LoadAdapter,
    NamedComposition,
    UnloadAdapter,
)
from lora_compose.server.benchmarks.plan import BenchmarkFields
from lora_compose.server.compositions.from_request import FORMS, ComposedModel, CompositionFields
from lora_compose.server.http.body import Body
from tests.adapters.compositions import compositions


def composed(**body: object) -> Composition:
    composition = ComposedModel.read(body).to_composition()
    assert composition is not None
    return composition


def of_fields(adapters: object, composition: object = None) -> Composition:
    return composed(adapters=adapters, composition=composition)


def of_llama_lora(lora: object) -> Composition:
    return composed(lora=lora)


def of_merged_adapters(merged: object) -> Composition:
    return composed(merged_adapters=merged)


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
        ({"id": True, "scale": 1}, "invalid_name"),
        ({"id": 0.5, "scale": 1}, "invalid_name"),
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


def test_an_empty_llama_cpp_list_is_the_base() -> None:
    assert ComposedModel.read({"lora": []}).to_composition() is None


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
        # LoRAX's client sends these with every strategy.
        (
            {"ids": ["a"], "merge_strategy": None, "density": 0.0, "majority_sign_method": "total"},
            "linear(a)",
        ),
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
        ({"ids": ["a"], "merge_strategy": "ties", "density": 0.0}, "invalid_density"),
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
    for form in FORMS:
        try:
            composition = ComposedModel.read({form: value}).to_composition()
        except InvalidRequest:
            continue
        assert (composition is None) == (value is None or (form == "lora" and value == []))
        assert composition is None or parse(composition.canonical) == composition


@pytest.mark.parametrize("form", FORMS)
def test_a_form_that_is_null_is_not_given(form: str) -> None:
    assert ComposedModel.read({form: None}).to_composition() is None


@pytest.mark.parametrize(
    ("model", "body", "code", "param"),
    [
        (AdapterOffer, {}, "invalid_name", "name"),
        (AdapterOffer, {"name": "a..b"}, "invalid_name", "name"),
        (AdapterOffer, {"name": "\ud800"}, "invalid_name", "name"),
        (AdapterOffer, {"name": "a", "alias": "1"}, "invalid_name", "alias"),
        (AdapterOffer, {"name": "a", "path": 7}, "invalid_request", "path"),
        (AdapterOffer, {"name": "a", "digest": ["0"]}, "invalid_request", "digest"),
        (AdapterOffer, {"name": "a", "lineage": None}, "invalid_lineage", "lineage"),
        (AdapterOffer, {"name": 7, "nmae": "a"}, "unknown_field", "nmae"),
        (AdapterUpload, {"name": "a", "path": "/x"}, "unknown_field", "path"),
        (AliasTarget, {}, "invalid_version", "version"),
        (AliasTarget, {"version": True}, "invalid_version", "version"),
        (AliasTarget, {"version": 1.0}, "invalid_version", "version"),
        (LoadAdapter, {"lora_name": "a"}, "invalid_source", "lora_path"),
        (LoadAdapter, {"lora_name": "a", "lora_path": "x", "load_inplace": 1}, "invalid_request",
         "load_inplace"),
        (UnloadAdapter, {"lora_name": "a@0"}, "invalid_name", "lora_name"),
        (NamedComposition, {"name": None}, "invalid_name", "name"),
        (ComposedModel, {"model": ""}, "invalid_model", "model"),
        (ComposedModel, {"": 1}, "unknown_field", ""),
        (ComposedModel, {"adapters": [{"": 1}]}, "unknown_field", "adapters[0]."),
        (ComposedModel, {"lora": [{"id": "a", "scale": 10**400}]}, "invalid_weight", "lora[0].scale"),
        (ComposedModel, {"adapters": [{"name": "a"}] * 17}, "invalid_composition", "adapters"),
        (ComposedModel, {"lora": [{"id": "a", "scale": 1}] * 17}, "invalid_composition", "adapters"),
        (ComposedModel, {"adapters": [{"name": "a"}], "composition": {"method": "svd", "rank": 10**30}},
         "invalid_rank", "composition.rank"),
        (ComposedModel, {"merged_adapters": {"ids": ["a"], "weights": [1, 2]}}, "invalid_weight",
         "merged_adapters.weights"),
        (BenchmarkFields, {"rates": [10**400]}, "out_of_range", "rates"),
        (BenchmarkFields, {"adapters": [7]}, "out_of_range", "adapters"),
        (BenchmarkFields, {"adapters": ["a b"]}, "invalid_name", "adapters"),
        (BenchmarkFields, {"arms": ["\ud800"]}, "arm_not_allowed", "arms"),
        (BenchmarkFields, {"seed": None}, "out_of_range", "seed"),
    ],
)  # fmt: skip
def test_a_fault_has_its_code_and_its_field(model: type[Body], body: object, code: str, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        model.read(body)
    assert (refused.value.code, refused.value.param) == (code, param)


MODELS: tuple[type[Body], ...] = (
    *(AdapterOffer, AdapterUpload, AliasTarget, LoadAdapter, UnloadAdapter),
    *(NamedComposition, CompositionFields, BenchmarkFields),
)


@given(st.data())
def test_every_fault_is_a_row_of_the_table_in_our_words(data: st.DataObject) -> None:
    model = data.draw(st.sampled_from(MODELS))
    fields = st.sampled_from([*model.model_fields, "nothing"])
    body = data.draw(st.dictionaries(fields, JSON | st.lists(JSON, max_size=3), max_size=4))
    try:
        model.read(body)
    except InvalidRequest as error:
        message, param = error.message, error.param
    else:
        return
    assert message != OTHER.message.replace("{param}", str(param)), param
    assert message.isprintable()
    assert not re.search("Input should|Field required|valid (string|list|dict)", message)


def test_a_million_unknown_fields_cost_no_more_than_one() -> None:
    fields = dict.fromkeys(map(str, range(10**6)))
    bodies: list[dict[str, Any]] = [fields, {"adapters": [fields]}, {"adapters": [{}] * 10**6}]
    began = perf_counter()
    for hostile in bodies:
        with pytest.raises(InvalidRequest):
            ComposedModel.read(hostile)
    assert perf_counter() - began < 0.5  # about 0.0003; with an error for each, several seconds


@pytest.mark.parametrize(
    "field", ["is_3d_lora_weight", "base_model_name", "lora_int_id", "lora_adapter_id", ""]
)
@pytest.mark.parametrize("value", [None, 1, False, "testbed-base", {"a": [1]}])
def test_other_fields_of_vllm_s_own_bodies_are_ignored(field: str, value: object) -> None:
    load = {"lora_name": "sql", "lora_path": "/adapters/sql"}
    assert LoadAdapter.read(load | {field: value}) == LoadAdapter.read(load)
    assert UnloadAdapter.read({"lora_name": "sql", field: value}) == UnloadAdapter.read({"lora_name": "sql"})


@given(st.from_regex(REFERENCE_PATTERN) | st.text("a1@._-/\n", max_size=6))
def test_a_reference_is_what_the_document_says(text: str) -> None:
    matches = re.search(REFERENCE_PATTERN.removesuffix("$") + r"\Z", text) is not None
    try:
        UnloadAdapter.read({"lora_name": text})
    except InvalidRequest:
        assert not matches
    else:
        assert matches
