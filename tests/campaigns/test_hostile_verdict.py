"""The figures of a hostile run, from rows alone."""

from typing import Any

from tests.campaigns.hostile.verdict import Pair, failures, ratios


def row(wait: float, failure: str | None = None) -> dict[str, Any]:
    times = [wait + 0.01 * n for n in range(4)]
    return {"due": 0.0, "times": times, "ended": times[-1], "tokens": 4, "failure": failure}


def test_the_ratio_compares_both_windows_and_its_interval_contains_it() -> None:
    quiet = [row(0.02) for _ in range(50)]
    pairs = [Pair("a", True, quiet, [row(0.04) for _ in range(50)]) for _ in range(3)]
    found = {(one.metric, one.quantile): one for one in ratios(pairs, 0)}
    assert abs(found["ttft", "p99"].ratio - 2) < 1e-9
    assert found["ttft", "p99"].low <= 2 <= found["ttft", "p99"].high
    assert (found["ttft", "p99"].is_kept, found["itl", "p99"].is_kept) == (False, True)


def test_the_interval_is_wide_where_windows_differ() -> None:
    quiet = [row(0.02) for _ in range(50)]
    pairs = [Pair("a", True, quiet, [row(wait) for _ in range(50)]) for wait in (0.02, 0.2)]
    found = {(one.metric, one.quantile): one for one in ratios(pairs, 0)}["ttft", "p99"]
    assert found.low < 1.1
    assert found.high > 9


def test_failed_requests_are_counted_and_not_timed() -> None:
    pair = Pair("a", True, [row(0.02)], [row(0.02), row(9, "http_503"), row(9, "wrong_answer")])
    assert failures([pair]) == {"quiet": {}, "hostile": {"http_503": 1, "wrong_answer": 1}}
    assert max(one.hostile for one in ratios([pair], 0)) < 0.1
