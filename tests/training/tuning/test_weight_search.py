"""The search finds the best weights, keeps weights that make no difference, and scores nothing twice."""

from collections import Counter
from math import hypot
from time import monotonic, sleep

import pytest

from lora_compose.training.tuning.weight_search import FINEST_STEP, GRID, Trial, search


@pytest.mark.parametrize("peak", [(1.0, 1.0), (0.4, 1.3), (1.5, 0.25), (0.9, 1.6)])
def test_the_best_weights_of_a_smooth_score_are_found_to_the_finest_step(peak: tuple[float, float]) -> None:
    best = search(2, lambda weights: -hypot(weights[0] - peak[0], weights[1] - peak[1]))
    assert best.weights == pytest.approx(peak, abs=FINEST_STEP)


def test_if_all_scores_are_equal_the_weights_stay_1() -> None:
    assert search(3, lambda _: 0.5) == Trial((1.0, 1.0, 1.0), 0.5)


def test_among_equal_scores_the_middle_of_the_plateau_wins() -> None:
    best = search(2, lambda weights: float(0.5 <= weights[0] <= 1.0 and weights[1] >= 1.25))
    assert best.score == 1.0
    assert best.weights[0] == pytest.approx(0.75, abs=FINEST_STEP)
    assert best.weights[1] > 1.25


def test_a_plateau_whose_middle_is_worse_gives_weights_that_were_scored_best() -> None:
    def ring(weights: tuple[float, ...]) -> float:
        return float(abs(hypot(weights[0] - 0.8, weights[1] - 0.8) - 0.3) < 0.1)

    best = search(2, ring)
    assert best.score == ring(best.weights) == 1.0


def test_weights_of_1_that_are_perfect_end_the_search() -> None:
    trials: list[Trial] = []
    assert search(2, lambda _: 1.0, trials.append, perfect=1.0) == Trial((1.0, 1.0), 1.0)
    assert len(trials) == 1


def test_a_search_whose_time_ends_returns_the_best_so_far() -> None:
    trials: list[Trial] = []
    best = search(2, lambda weights: -abs(weights[0] - 0.5), trials.append, seconds=0.0)
    assert (best.weights, len(trials)) == ((1.0, 1.0), 1)


def test_no_weights_are_scored_that_could_end_too_late() -> None:
    trials: list[Trial] = []

    def score(weights: tuple[float, ...]) -> float:
        sleep(0.3 if len(trials) == 1 else 0.05)
        return weights[0]

    started = monotonic()
    search(2, score, trials.append, seconds=1.0)
    assert len(trials) > 2
    assert monotonic() - started < 1.25


def test_no_weights_are_scored_twice_and_each_is_reported_once() -> None:
    asked: Counter[tuple[float, ...]] = Counter()
    trials: list[Trial] = []

    def score(weights: tuple[float, ...]) -> float:
        asked[weights] += 1
        return -abs(weights[0] - 0.6) - abs(weights[1] - 1.2)

    search(2, score, trials.append)
    assert set(asked.values()) == {1}
    assert [trial.weights for trial in trials] == list(asked)
    assert len(asked) < len(GRID) ** 2 + 20


def test_five_members_take_a_walk_and_not_the_whole_grid() -> None:
    trials: list[Trial] = []
    best = search(5, lambda weights: -sum(abs(w - 0.5) for w in weights), trials.append)
    assert best.weights == (0.5,) * 5
    assert len(trials) < 200


def test_no_member_is_ever_left_out() -> None:
    trials: list[Trial] = []
    search(2, lambda weights: -sum(weights), trials.append)
    assert min(min(trial.weights) for trial in trials) > 0
