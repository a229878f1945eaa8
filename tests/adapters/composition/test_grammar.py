import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_compose.adapters.composition.composition import Composition
from lora_compose.adapters.composition.grammar import parse
from lora_compose.adapters.errors import InvalidRequest
from tests.adapters.compositions import compositions


@given(compositions())
def test_the_canonical_name_reads_back_as_the_same_composition(composition: Composition) -> None:
    again = parse(composition.canonical)
    assert again == composition
    assert again.canonical == composition.canonical


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("sql:0.50+polite", "polite+sql:0.5"),
        ("sql:.5", "sql:0.5"),
        ("sql:1e-05 + polite:-1.0", "polite:-1+sql:1e-05"),
        ("cat(a+b)", "a+b"),
        ("dare_ties(b@prod+a, seed=0, rank=8, density=0.30, majority_sign_method=frequency)",
         "dare_ties(a+b@prod,density=0.3,majority_sign_method=frequency,rank=8)"),
        ("v1e+1b", "1b+v1e"),
        ("0.5:0.5", "0.5:0.5"),
        ("org/b@2:0.5+a/b/c", "a/b/c+org/b@2:0.5"),
        ("ties(org/sql;density=0.3; rank=8)", "ties(org/sql,density=0.3,rank=8)"),
        ("b@2*0.7+a*-1", "a:-1+b@2:0.7"),
        ("dare_ties(a*.5+b;density=0.3,seed=2)", "dare_ties(a:0.5+b,density=0.3,seed=2)"),
    ],
)  # fmt: skip
def test_equal_requests_get_one_name(text: str, canonical: str) -> None:
    assert parse(text).canonical == canonical


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "invalid_composition"),
        ("a++b", "invalid_composition"),
        ("+a", "invalid_composition"),
        ("ties()", "invalid_composition"),
        ("ties(a,density)", "invalid_composition"),
        ("ties(a,density=)", "invalid_composition"),
        ("ties(a,density=0.3,density=0.3)", "invalid_composition"),
        ("a" * 5000, "invalid_composition"),
        ("org/", "invalid_name"),
        ("org//model", "invalid_name"),
        ("../model", "invalid_name"),
        ("org/model/pin", "invalid_name"),
        ("a;b", "invalid_name"),
        ("a@3f2a9c", "invalid_name"),
        ("org/a@refs/pr/1", "invalid_name"),
        ("a*", "invalid_weight"),
        ("a*2*3", "invalid_weight"),
        ("a\n", "invalid_name"),
        ("a@", "invalid_name"),
        ("a@1@2", "invalid_name"),
        ("ties(a,density=0.3", "invalid_name"),
        ("a:", "invalid_weight"),
        ("a:nan", "invalid_weight"),
        ("a:Infinity", "invalid_weight"),
        ("a:1_0", "invalid_weight"),
        ("a:0x1", "invalid_weight"),
        ("a:1:2", "invalid_weight"),
        ("a:\u0661", "invalid_weight"),
        ("a:" + "9" * 4000, "invalid_weight"),
        ("a+a:2", "duplicate_member"),
        ("slerp(a+b)", "unknown_method"),
        ("svd(a+b,t=1)", "unknown_field"),
        ("svd(a+b,rank=" + "9" * 4000 + ")", "invalid_rank"),
        ("svd(a+b,rank=1.5)", "invalid_rank"),
        ("ties(a+b)", "missing_density"),
        ("ties(a+b,density=nan)", "invalid_density"),
    ],
)
def test_what_is_not_a_composition_is_refused_with_a_reason(text: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(text)
    assert refused.value.code == code


@given(st.text(alphabet="ab1.:+@(),=-e \nties", max_size=40) | st.text(max_size=40))
def test_any_text_is_a_composition_or_an_invalid_request(text: str) -> None:
    try:
        composition = parse(text)
    except InvalidRequest:
        return
    assert parse(composition.canonical) == composition
