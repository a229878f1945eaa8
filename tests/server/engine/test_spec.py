"""The residual that a request needs while a composition is fused."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_compose.server.engine.spec import Component, combined, decode_spec, encode_spec

COMPONENTS = st.dictionaries(
    st.sampled_from("abcd"), st.floats(-2, 2, allow_nan=False).filter(bool), max_size=4
).map(lambda d: tuple(Component(name, weight, 4) for name, weight in d.items()))


@given(COMPONENTS)
def test_nothing_is_left_of_what_is_fused(fused: tuple[Component, ...]) -> None:
    assert combined(fused, fused) == ()
    assert combined(tuple(reversed(fused)), fused) == ()


@given(COMPONENTS, COMPONENTS)
def test_what_is_left_is_the_difference(wanted: tuple[Component, ...], fused: tuple[Component, ...]) -> None:
    left = {c.directory: c.weight for c in combined(wanted, fused)}
    for name in "abcd":
        difference = sum(c.weight for c in wanted if c.directory == name)
        difference -= sum(c.weight for c in fused if c.directory == name)
        assert left.get(name, 0.0) == pytest.approx(difference, abs=1e-12)


@given(COMPONENTS, st.randoms())
def test_order_does_not_matter(components: tuple[Component, ...], draw: Random) -> None:
    shuffled = draw.sample(components, len(components))
    assert combined(shuffled, ()) == combined(components, ())


WHOLE = st.dictionaries(st.sampled_from("abcd"), st.integers(-3, 3).filter(bool), max_size=4).map(
    lambda d: tuple(Component(name, float(weight), 4) for name, weight in d.items())
)


@given(WHOLE, WHOLE)
def test_what_is_left_and_what_is_fused_are_what_was_wanted(
    wanted: tuple[Component, ...], fused: tuple[Component, ...]
) -> None:
    left = combined(wanted, fused)
    assert combined((*left, *fused), ()) == combined(wanted, ())
    assert combined(left, tuple(replace(c, weight=-c.weight) for c in fused)) == combined(wanted, ())
    assert all(c.rank == 4 for c in left)


@given(COMPONENTS)
def test_a_spec_survives_its_way_as_text(components: tuple[Component, ...]) -> None:
    decoded = decode_spec(encode_spec(components))
    assert [(c.directory, c.weight) for c in decoded] == [(c.directory, c.weight) for c in components]


def test_other_paths_are_no_specs() -> None:
    with pytest.raises(ValueError, match="not a composition spec"):
        decode_spec("/not/a/spec")
