"""How a soak judges: the versions that a name could mean at a time, and whether something grew."""

import random
from typing import Any

from lora_compose.benchmarks.serving.expected_answers import Expected
from tests.campaigns.soaking.expected_state import ExpectedState
from tests.campaigns.soaking.fault_injection import Fault
from tests.campaigns.soaking.requests import Answer
from tests.campaigns.soaking.sampling import growth
from tests.campaigns.soaking.verdict import judge


def known() -> ExpectedState:
    made = ExpectedState()
    made.truth = {("single", name, 0): Expected(ids, 2) for name, ids in (("roll", (1, 2)), ("dbl", (3, 4)))}
    made.registered("t", 1, "roll", began=0.0)
    return made


def answer(ids: list[int], by: str = "t@1", failure: str | None = None) -> Answer:
    later = 1e12
    return Answer("single", "t", 0, later, later + 1, by, ids, failure)


def test_an_answer_is_compared_with_the_version_that_gave_it() -> None:
    made = known()
    assert judge([answer([1, 2])], [], made)["bad_count"] == 0
    assert judge([answer([3, 4])], [], made)["bad"][0]["verdict"] == "wrong: text"
    made.registered("t", 2, "dbl", began=0.0)
    assert judge([answer([3, 4], "t@2")], [], made)["bad_count"] == 0
    assert "did not mean" in judge([answer([1, 2], "t@1")], [], made)["bad"][0]["verdict"]


def test_a_failure_needs_a_reason() -> None:
    made, failed = known(), answer([], failure="404 model_not_found")
    assert judge([failed], [], made)["bad_count"] == 1
    assert judge([failed], [Fault("engine killed", 0.0, True)], made)["bad_count"] == 0
    made.removed("t", 1, began=0.0)
    assert judge([failed], [], made)["bad_count"] == 0


def samples(slope: float, noise: float) -> list[dict[str, Any]]:
    draw = random.Random(1)
    return [
        {"at": 5.0 * n, "server_pid": 1, "server_mib": 500 + slope * 5 * n / 3600 + draw.gauss(0, noise)}
        for n in range(360)
    ]


def test_growth_beyond_the_bound_is_found_and_noise_is_not() -> None:
    leaking, flat = (growth(samples(slope, 5), "server_mib") for slope in (300, 0))
    assert leaking is not None
    assert flat is not None
    assert leaking["low"] < 300 < leaking["high"]
    assert (leaking["is_flat"], flat["is_flat"]) == (False, True)
