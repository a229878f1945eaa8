import pytest

from benchmarks.client import Row
from benchmarks.passes import Pass, median_ttft, output_throughput, value_by_round


def answered(tokens: int, first: float | None = None, failure: str | None = None) -> Row:
    usage = {"completion_tokens": tokens}
    return Row("m", sent=10.0, ended=20.0, first=first, usage=usage, failure=failure)


def one_pass(*rows: Row, seconds: float = 2.0, number: int = 0) -> Pass:
    return Pass("phase", "arm", number, rows, seconds)


def test_throughput_is_all_tokens_over_all_seconds_not_a_mean_of_rates() -> None:
    passes = [one_pass(answered(30), seconds=1.0), one_pass(answered(30), seconds=2.0)]
    assert output_throughput(passes) == pytest.approx(20.0)


def test_the_tokens_of_a_failed_request_do_not_count() -> None:
    passes = [one_pass(answered(30), answered(30, failure="wrong_length"))]
    assert output_throughput(passes) == pytest.approx(15.0)


def test_time_to_first_token_is_from_the_requests_own_sending() -> None:
    assert median_ttft([one_pass(answered(1, 10.1), answered(1, 10.2)), one_pass(answered(1, 10.6))]) == (
        pytest.approx(0.2)
    )


def test_a_round_with_a_failure_in_either_half_is_left_out() -> None:
    good, bad = answered(8), answered(8, failure="http_500")
    passes = [one_pass(good), one_pass(good), one_pass(good, number=1), one_pass(bad, number=1)]
    assert value_by_round(passes, "arm", output_throughput) == {0: pytest.approx(4.0)}
