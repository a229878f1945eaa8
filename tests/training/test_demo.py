import socket
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_compose.training.testbed.demo import demo
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


def test_a_port_in_use_is_left_to_its_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        monkeypatch.setattr(demo, "DEFAULT_PORT", taken)
        port = demo.port_to_use()
    assert port != taken
    assert (
        capsys.readouterr().out == f"port {taken} is in use by another program, so this server uses {port}\n"
    )
    assert demo.port_to_use() == taken
    assert capsys.readouterr().out == ""
