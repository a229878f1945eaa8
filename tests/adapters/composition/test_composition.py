import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_compose.adapters.composition.composition import Composition, Member, MethodOptions
from lora_compose.adapters.errors import InvalidRequest
from tests.adapters.compositions import compositions


@given(compositions(), st.randoms(use_true_random=False))
def test_the_order_of_members_makes_no_difference(composition: Composition, order: random.Random) -> None:
    shuffled = list(composition.members)
    order.shuffle(shuffled)
    again = Composition(tuple(shuffled), composition.method, composition.options)
    assert again == composition
    assert again.canonical == composition.canonical


@pytest.mark.parametrize(
    ("composition", "canonical"),
    [
        (Composition((Member("sql", ref="3"),)), "sql@3"),
        (Composition((Member("sql", 0.7, "3"), Member("polite", 0.3, "1"))), "polite@1:0.3+sql@3:0.7"),
        (Composition((Member("a", -2.0), Member("b", -0.0), Member("c", 1e-05))), "a:-2+b:0+c:1e-05"),
        (
            Composition(
                (Member("sql", ref="3"), Member("polite", 0.50, "1")),
                "ties",
                MethodOptions(rank=16, density=0.3),
            ),
            "ties(polite@1:0.5+sql@3,density=0.3,rank=16)",
        ),
        (
            Composition((Member("a"),), "dare_linear", MethodOptions(density=1.0, seed=7)),
            "dare_linear(a,density=1,seed=7)",
        ),
    ],
)
def test_the_canonical_name_leaves_out_what_is_the_default(composition: Composition, canonical: str) -> None:
    assert composition.canonical == canonical


@pytest.mark.parametrize(
    "weight",
    [float("nan"), float("inf"), 1e30, 100.1, -101, 10**400, "1", True, None],
    ids=lambda value: repr(value)[:9],
)
def test_a_weight_is_a_finite_number_of_bounded_size(weight: float) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Member("sql", weight)
    assert refused.value.code == "invalid_weight"


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ((), "invalid_composition"),
        (tuple(Member(f"a{i}") for i in range(17)), "invalid_composition"),
        (
            tuple(Member("a" * 120 + f"{i}", ref="b" * 128, weight=1 / 3) for i in range(16)),
            "invalid_composition",
        ),
        ((Member("sql"), Member("sql", 0.5)), "duplicate_member"),
        ((Member("sql", ref="2"), Member("sql", ref="2")), "duplicate_member"),
    ],
)
def test_members_are_one_to_sixteen_different_ones(members: tuple[Member, ...], code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Composition(members)
    assert refused.value.code == code


def test_members_are_pinned_to_what_they_resolved_to() -> None:
    composition = Composition((Member("sql", 0.5), Member("polite", ref="prod")))
    pinned = composition.with_refs({Member("sql", 0.5): 10, Member("polite", ref="prod"): 2})
    assert pinned.canonical == "polite@2+sql@10:0.5"


def test_two_spellings_of_one_version_are_one_member_named_twice() -> None:
    composition = Composition((Member("sql"), Member("sql", ref="prod")))
    with pytest.raises(InvalidRequest) as refused:
        composition.with_refs({Member("sql"): 3, Member("sql", ref="prod"): 3})
    assert refused.value.code == "duplicate_member"
