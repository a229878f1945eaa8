"""Scores, intervals and forgetting."""

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_compose.training.evaluation.held_out_text import HeldOutText
from lora_compose.training.evaluation.intervals import bootstrap, mean_interval, newcombe, wilson
from lora_compose.training.evaluation.judges.named import judge_named
from lora_compose.training.evaluation.judges.question import Question
from lora_compose.training.evaluation.likelihood import Likelihood
from lora_compose.training.evaluation.scores import TaskScore, forgetting, score
from lora_compose.training.evaluation.tasks import Kind, Task


class Parrot:
    """Gives a number of right answers, then wrong ones. Each token of an answer has the same loss."""

    def __init__(self, right: int, loss: float = 1.0) -> None:
        self._right = right
        self._loss = loss

    def answer(self, prompts: object, max_tokens: int) -> list[str]:
        return [f" {number} " if number < self._right else "?" for number in range(4)]

    def length(self, answer: str) -> int:
        return len(answer) + 1

    def likelihoods(self, pairs: Sequence[tuple[object, str]]) -> list[Likelihood]:
        lengths = [self.length(answer) for _, answer in pairs]
        return [Likelihood(-self._loss * length, length) for length in lengths]

    def windows(self, text: HeldOutText) -> list[Likelihood]:
        return [Likelihood(-self._loss * len(word), len(word)) for word in text.text.split()]


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
    lost = forgetting(score(Parrot(4), TASKS), score(Parrot(3), TASKS))
    value, (low, high) = lost["forgetting"]
    assert value == 0.25
    assert low < 0 < 0.25 < high
    assert forgetting(score(Parrot(4), TASKS[:1]), score(Parrot(3), TASKS[:1])) == {}


def losses(name: str) -> list[Task]:
    return [replace(task, judge=judge_named(name)) for task in TASKS]


def test_a_higher_loss_is_forgetting_and_no_answer_is_right() -> None:
    base, found = score(Parrot(4, 1.0), losses("loss")), score(Parrot(4, 1.5), losses("loss"))
    assert found.named() == {"domain": pytest.approx(1.5), "general": pytest.approx(1.5)}
    assert forgetting(base, found)["forgetting"][0] == pytest.approx(0.5)
    assert found.changes(base)["domain"][0] == pytest.approx(0.5)
    assert [task.right for task in found.tasks] == [0, 0, 0]
    assert score(Parrot(4), losses("perplexity")).general == pytest.approx(math.e)


def test_a_text_has_a_perplexity_and_its_loss_before_and_after_is_compared() -> None:
    text = HeldOutText("notes.txt", "some words of a text")
    base, found = score(Parrot(4, 1.0), (), texts=[text]), score(Parrot(4, 1.25), (), texts=[text])
    assert found.named() == {"perplexity:notes.txt": pytest.approx(math.exp(1.25))}
    assert forgetting(base, found)["forgetting:notes.txt"][0] == 0.25


def test_each_question_can_have_its_own_judge_and_groups_have_means() -> None:
    def asked(answer: str, **fields: str) -> Question:
        return Question([{"role": "user", "content": "?"}], answer, fields)

    questions = (
        asked("0.0", judge="numeric", group="a"),
        asked("1", group="a"),
        asked("3", judge="numeric", group="b"),
        asked("4", group="b"),
    )
    task = Task("mixed", "domain", questions)
    task.check()
    (found,) = score(Parrot(3), [task]).tasks
    assert list(found.values) == [1, 1, 0, 0]
    assert {name: part.score for name, part in found.parts.items()} == {"group:a": 1, "group:b": 0}
    assert found.parts["group:a"].interval == wilson(2, 2)


def graded(values: Sequence[float], judge: str = "rouge-l") -> TaskScore:
    return TaskScore("a", "domain", judge, tuple(values), (1,) * len(values))


def test_a_graded_score_has_a_bootstrap_and_a_share_has_wilson_s_interval() -> None:
    assert graded([1, 0, 1, 1]).interval == wilson(3, 4)
    low, high = graded([0.1, 0.5, 0.6, 0.9] * 20).interval
    assert [low < 0.525, high > 0.525] == [True, True]
    assert high - low == pytest.approx(2 * 1.96 * 0.286 / 80**0.5, rel=0.1)
    assert graded([0.5]).interval == (0.5, 0.5)


def test_a_paired_change_is_narrower_than_the_scores_are() -> None:
    before = [0.1, 0.9, 0.3, 0.7, 0.5] * 8
    change, (low, high) = graded([value + 0.05 for value in before]).change_since(graded(before))
    assert change == pytest.approx(0.05)
    assert high - low == pytest.approx(0, abs=1e-9)
    ends = graded(before).interval
    assert ends[1] - ends[0] > 0.1


def test_the_interval_of_paired_shares_is_newcombe_s() -> None:
    """Newcombe 1998, table II, method 10: of 50 pairs, 20 and 16 agree, 12 and 2 differ."""
    pairs = [(True, True)] * 20 + [(True, False)] * 12 + [(False, True)] * 2 + [(False, False)] * 16
    after, before = [a for a, _ in pairs], [b for _, b in pairs]
    assert newcombe(before, after) == pytest.approx((0.0562, 0.3292), abs=1e-4)
    low, high = newcombe([True] * 10, [True] * 10)
    assert (low, high) == pytest.approx((-0.2775, 0.2775), abs=1e-3)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_a_paired_interval_holds_the_change_and_turns_with_it(pairs: list[tuple[bool, bool]]) -> None:
    before, after = [a for a, _ in pairs], [b for _, b in pairs]
    low, high = newcombe(before, after)
    change = fmean(after) - fmean(before)
    assert low - 1e-12 <= change <= high + 1e-12
    assert newcombe(after, before) == pytest.approx((-high, -low))


def test_the_mean_of_two_tasks_is_known_better_than_each() -> None:
    low, high = mean_interval([0.4, 0.6], [(0.3, 0.5), (0.5, 0.7)])
    assert (low, high) == pytest.approx((0.5 - 0.1 / 2**0.5, 0.5 + 0.1 / 2**0.5))
    assert mean_interval([0.4], [(0.3, 0.6)]) == pytest.approx((0.3, 0.6))


def test_a_bootstrap_is_the_same_every_time() -> None:
    values = [0.1, 0.4, 0.2, 0.9]
    first = bootstrap(lambda rows: fmean(values[row] for row in rows), 4)
    assert first == bootstrap(lambda rows: fmean(values[row] for row in rows), 4)


@given(st.integers(1, 500).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_an_interval_holds_its_share_and_stays_within_0_and_1(counts: tuple[int, int]) -> None:
    low, high = wilson(*counts)
    assert 0 <= low <= counts[0] / counts[1] + 1e-12
    assert counts[0] / counts[1] - 1e-12 <= high <= 1
    assert high - low > 0


def test_the_interval_is_wilson_s() -> None:
    assert wilson(8, 10) == pytest.approx((0.4901, 0.9433), abs=1e-3)
