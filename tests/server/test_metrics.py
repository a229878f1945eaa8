import inspect

from vllm.v1.metrics import buckets

from server import metrics


def test_the_buckets_are_those_of_vllm_s_histograms_of_the_same() -> None:
    assert metrics.FIRST_TOKEN_SECONDS == buckets.TIME_TO_FIRST_TOKEN_BUCKETS
    assert metrics.INTER_TOKEN_SECONDS == buckets.INTER_TOKEN_LATENCY_BUCKETS
    assert metrics.E2E_SECONDS == buckets.REQUEST_LATENCY_BUCKETS


def test_every_metric_says_what_it_is_and_none_has_a_colon() -> None:
    for family in metrics.Metrics().registry.collect():
        assert len(family.documentation) > 10, family.name
        assert ":" not in family.name
    assert "client" not in inspect.signature(metrics.Metrics).parameters
