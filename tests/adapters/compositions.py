"""Hypothesis strategies for compositions: all valid ones, with names that a person could choose."""

from hypothesis import strategies as st

from lora_compose.adapters.composition.composition import (
    ELECTS_SIGN,
    METHOD_NAMES,
    NEEDS_DENSITY,
    SEEDED,
    TAKES_RANK,
    Composition,
    Member,
    MethodOptions,
)

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,7}(\.[a-z0-9]{1,3})?", fullmatch=True)
refs = (
    st.none() | st.integers(1, 999_999_999).map(str) | st.from_regex(r"[a-z][a-z0-9-]{0,5}", fullmatch=True)
)
weights = st.floats(-100, 100) | st.sampled_from([1.0, 0.5, 0.0, -1.0, 1e-05])
members = st.builds(Member, names, weights, refs)


@st.composite
def options(draw: st.DrawFn, method: str) -> MethodOptions:
    """Any options that `method` may take."""
    return MethodOptions(
        rank=draw(st.none() | st.integers(1, 512)) if method in TAKES_RANK else None,
        density=draw(st.floats(0, 1, exclude_min=True)) if method in NEEDS_DENSITY else None,
        seed=draw(st.integers(0, 2**31 - 1)) if method in SEEDED else 0,
        majority_sign_method=draw(st.sampled_from(["total", "frequency"]))
        if method in ELECTS_SIGN
        else "total",
    )


@st.composite
def compositions(draw: st.DrawFn) -> Composition:
    method = draw(st.sampled_from(METHOD_NAMES))
    chosen = draw(st.lists(members, min_size=1, max_size=16, unique_by=lambda member: member.id))
    return Composition(tuple(chosen), method, draw(options(method)))
