"""The verdict of `make smollm2-check`, and its chats."""

from typing import Any

from tests.campaigns.real_model.chats import chats
from tests.campaigns.real_model.check import composition, faults

NAME = "order:1+greet:1"


def result(stack: float = 1e-5, fused: float = 1e-5, exact: bool = True, lead: float = 0.0) -> dict[str, Any]:
    return {
        "float32": {
            "stacks": {NAME: {"largest": stack}},
            "fusions": {NAME: {"fused": fused, "restored_exactly": exact}},
            "greedy": {"differences": [{"chat": 3, "token": 5, "lead": lead}]},
        }
    }


def of_bfloat16(stack: float, fused: float) -> dict[str, Any]:
    return {
        "bfloat16": {
            "stacks": {NAME: {"largest": 1.0, "mean_from_float32": stack, "peft_mean_from_float32": 0.04}},
            "fusions": {NAME: {"fused": 1.0, "mean_from_float32": fused, "restored_exactly": True}},
        }
    }


def test_what_is_within_the_bounds_is_no_fault() -> None:
    assert faults(result()) == []
    assert faults(of_bfloat16(0.05, 0.05)) == []


def test_every_kind_of_difference_is_a_fault() -> None:
    assert faults(result(stack=0.1)) == [f"float32: {NAME} differs by 0.1"]
    assert faults(result(stack=float("nan"))) == [f"float32: {NAME} differs by nan"]
    assert faults(result(fused=0.1)) == [f"float32: fused {NAME} differs by 0.1 from its stack"]
    assert faults(result(exact=False)) == [f"float32: the base is not the same after {NAME} was fused"]
    assert faults(result(lead=0.1)) == ["float32: greedy chat 3 differs at token 5"]


def test_bfloat16_may_not_be_farther_from_float32_than_peft_is() -> None:
    assert faults(of_bfloat16(0.06, 0.07)) == [
        f"bfloat16: {NAME} is 0.06 from float32 in the mean, PEFT 0.04",
        f"bfloat16: fused {NAME} is 0.07 from float32 in the mean, PEFT 0.04",
    ]
    assert len(faults(of_bfloat16(float("nan"), 0.04))) == 1


def test_there_are_fifty_different_chats_that_end_with_a_question() -> None:
    found = chats()
    assert len({str(chat) for chat in found}) == len(found) == 50
    assert {chat[-1]["role"] for chat in found} == {"user"}


def test_a_stack_is_named_with_its_weights() -> None:
    assert composition({"order": 1.0, "greet": 0.6}) == "order:1+greet:0.6"
