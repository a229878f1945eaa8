"""The verdict of `make smollm2-check`, and its chats."""

from typing import Any

from tests.campaigns.real_model.chats import chats
from tests.campaigns.real_model.check import composition, faults


def result(stack: float = 1e-5, fused: float = 1e-5, exact: bool = True, lead: float = 0.0) -> dict[str, Any]:
    return {
        "float32": {
            "stacks": {"order:1+greet:1": stack},
            "fusions": {"order:1+greet:1": {"fused": fused, "restored_exactly": exact}},
            "greedy": {"differences": [{"chat": 3, "token": 5, "lead": lead}]},
        }
    }


def test_what_is_within_the_bounds_is_no_fault() -> None:
    assert faults(result()) == []


def test_every_kind_of_difference_is_a_fault() -> None:
    assert faults(result(stack=0.1)) == ["float32: order:1+greet:1 differs by 0.1"]
    assert faults(result(stack=float("nan"))) == ["float32: order:1+greet:1 differs by nan"]
    assert faults(result(fused=0.1)) == ["float32: fused order:1+greet:1 differs by 0.1 from its stack"]
    assert faults(result(exact=False)) == [
        "float32: the base is not the same after order:1+greet:1 was fused"
    ]
    assert faults(result(lead=0.1)) == ["float32: greedy chat 3 differs at token 5"]


def test_there_are_fifty_different_chats_that_end_with_a_question() -> None:
    found = chats()
    assert len({str(chat) for chat in found}) == len(found) == 50
    assert {chat[-1]["role"] for chat in found} == {"user"}


def test_a_stack_is_named_with_its_weights() -> None:
    assert composition({"order": 1.0, "greet": 0.6}) == "order:1+greet:0.6"
