"""Shares, intervals and forgetting."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_compose.training.evaluation.scores import forgetting, score, wilson
from lora_compose.training.evaluation.tasks import Kind, Question, Task


class Parrot:
    """Gives a number of right answers, then empty answers."""

    def __init__(self, right: int) -> None:
        self._right = right

    def answer(self, prompts: object, max_tokens: int) -> list[str]:
        return [f" {number} " if number < self._right else "?" for number in range(4)]

    def length(self, answer: str) -> int:
        return len(answer) + 1


KINDS: tuple[tuple[str, Kind], ...] = (("a", "domain"), ("b", "domain"), ("c", "general"))
TASKS = [
    Task(name, kind, tuple(Question([{"role": "user", "content": "?"}], str(n)) for n in range(4)))
    for name, kind in KINDS
]


def test_scores_are_means_over_the_tasks_of_their_kind() -> None:
    found = score(Parrot(3), TASKS)
    assert (found.domain, found.general) == (0.75, 0.75)
    assert [len(task.wrong) for task in found.tasks] == [1, 1, 1]
    assert score(Parrot(3), TASKS[:1]).general is None


def test_forgetting_is_what_the_base_has_and_the_model_has_not() -> None:
    assert forgetting(score(Parrot(4), TASKS), score(Parrot(3), TASKS)) == 0.25
    assert forgetting(score(Parrot(4), TASKS[:1]), score(Parrot(3), TASKS)) is None


@given(st.integers(1, 500).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_an_interval_holds_its_share_and_stays_within_0_and_1(counts: tuple[int, int]) -> None:
    low, high = wilson(*counts)
    assert 0 <= low <= counts[0] / counts[1] + 1e-12
    assert counts[0] / counts[1] - 1e-12 <= high <= 1
    assert high - low > 0


def test_the_interval_is_wilson_s() -> None:
    assert wilson(8, 10) == pytest.approx((0.4901, 0.9433), abs=1e-3)
