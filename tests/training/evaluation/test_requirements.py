"""Requirements are met only if every bound holds, and a misspelled requirement is an error."""

import math

import pytest

from lora_compose.adapters.errors import InvalidRequest
from lora_compose.training.evaluation.requirements import Requirement, parse_requirements, unmet


def test_requirements_are_read_in_order_with_or_without_spaces() -> None:
    assert parse_requirements("domain>=0.9, forgetting <= .02,loss:own.jsonl<1e1") == (
        Requirement("domain", ">=", 0.9),
        Requirement("forgetting", "<=", 0.02),
        Requirement("loss:own.jsonl", "<", 10.0),
    )


@pytest.mark.parametrize(
    "text", ["", "domain", "domain=0.9", "domain>=", "domain>=nan", "a>=1,,b>=2", "a>=1 b>=2", "0.9<=a"]
)
def test_what_is_not_a_requirement_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_requirements(text)
    assert refused.value.code == "invalid_requirement"


def test_bounds_hold_at_the_bound_and_not_beyond_it() -> None:
    asked = parse_requirements("domain>=0.9,forgetting<=0.02,domain<1,domain>0")
    assert unmet(asked, {"domain": 0.9, "forgetting": 0.02}) == []
    assert unmet(asked, {"domain": 0.89, "forgetting": 0.03}) == [
        "domain>=0.9 is not met: domain is 0.89",
        "forgetting<=0.02 is not met: forgetting is 0.03",
    ]


def test_what_could_not_be_measured_meets_no_bound() -> None:
    asked = parse_requirements("domain>=0,domain<=1")
    assert len(unmet(asked, {"domain": math.nan})) == 2


def test_a_score_that_was_not_measured_is_an_error_that_names_the_measured_ones() -> None:
    with pytest.raises(InvalidRequest, match="forgeting") as refused:
        unmet(parse_requirements("domain>=0.9,forgeting<=1"), {"domain": 1.0, "forgetting": 0.0})
    assert refused.value.code == "unknown_score"
    assert "forgetting" in refused.value.message
