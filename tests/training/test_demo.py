from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_compose.training.testbed.demo.table import does_both, does_skill, does_style
from lora_compose.training.testbed.language import STYLES, answer

WORDS = st.text("abcdefghijklmnopqrstuvwxyz", min_size=3, max_size=6)
STYLE_SETS = st.sets(st.sampled_from(sorted(STYLES))).map(sorted)


@given(STYLE_SETS, WORDS)
def test_the_right_answer_has_the_skill_the_style_and_both(styles: list[str], word: str) -> None:
    right = answer("roll", styles, word)
    assert does_skill(right, "roll", word)
    assert does_style(right, styles)
    assert does_both(right, "roll", styles, word)


@given(STYLE_SETS, WORDS)
def test_other_content_does_not_count_as_the_skill(styles: list[str], word: str) -> None:
    assert not does_skill(answer("dbl", styles, word), "roll", word)


@pytest.mark.parametrize(("has", "lacks"), [*combinations(STYLES, 2)])
def test_one_style_is_not_another(has: str, lacks: str) -> None:
    text = answer("roll", [has], "table")
    assert does_style(text, [has])
    assert not does_style(text, [lacks])
    assert not does_style(text, [has, lacks])
