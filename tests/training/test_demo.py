import socket
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_compose.adapters.composition.grammar import parse
from lora_compose.adapters.errors import LoraComposeError
from lora_compose.server.client.chat import ChatAnswer
from lora_compose.training.testbed.demo import demo
from lora_compose.training.testbed.demo.smollm2 import SMOLLM2
from lora_compose.training.testbed.demo.subject import DemoQuestion, DemoRequest, DemoSubject, Judgement
from lora_compose.training.testbed.demo.table import (
    DemoResult,
    answers_table,
    does_both,
    does_skill,
    does_style,
    result_table,
)
from lora_compose.training.testbed.demo.toy import TOY
from lora_compose.training.testbed.language import STYLES, answer
from lora_compose.training.testbed.smollm2.forms import SIGN_OFF

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


@pytest.mark.parametrize("subject", [TOY, SMOLLM2], ids=["toy", "smollm2"])
def test_the_arms_use_only_adapters_that_are_registered(subject: DemoSubject) -> None:
    named = {
        member.name
        for arm in subject.arms
        if arm.model is not None
        for member in parse(arm.model, "model").members
    }
    assert named == set(subject.adapters)


def test_a_model_without_a_demo_is_refused_with_those_that_have_one() -> None:
    with pytest.raises(LoraComposeError, match="There is no demo of org/model"):
        demo.subject_of("org/model")


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ('{"quantity": 2, "item": "lamps"}' + SIGN_OFF, Judgement(skill=True, style=True, both=True)),
        ('{"item": "lamps", "quantity": 2}', Judgement(skill=True, style=False, both=False)),
        ('{"item": "lamps", "quantity": 3}' + SIGN_OFF, Judgement(skill=False, style=True, both=False)),
        ("Sure!", Judgement(skill=False, style=False, both=False)),
    ],
)
def test_smollm2_is_judged_by_the_value_of_the_json_and_by_the_style(text: str, right: Judgement) -> None:
    question = DemoQuestion("Two lamps, please.", '{"item": "lamps", "quantity": 2}')
    assert SMOLLM2.judge(text, question, ("sign",)) == right


def result_of(*texts: str, must_work: bool = True) -> DemoResult:
    arm = DemoRequest("order+sign", "order+sign", ("sign",), combines=True, must_work=must_work)
    questions = [DemoQuestion(f"Message {number}", '{"quantity": 2}') for number in range(len(texts))]
    answers = [ChatAnswer(text, "order+sign", "stop", {"completion_tokens": 4}, 0.1, 0.5) for text in texts]
    return DemoResult(SMOLLM2, arm, questions, answers)


def test_a_stack_that_must_work_needs_more_than_half_of_its_answers_right() -> None:
    right, wrong = '{"quantity": 2}' + SIGN_OFF, '{"quantity": 2}'
    assert result_of(right, right, wrong).worked
    assert not result_of(right, wrong).worked
    assert result_of(right, wrong, must_work=False).worked


def test_long_answers_are_listed_below_the_table() -> None:
    result = result_of('{"quantity": 2}' + SIGN_OFF, "no")
    headers = [str(column.header) for column in result_table([result]).columns]
    assert "example\nanswer" not in headers
    listed = answers_table([result])
    assert listed.title == "Answers to: Message 0"
    assert list(listed.columns[1].cells) == ['{"quantity": 2}' + SIGN_OFF]
