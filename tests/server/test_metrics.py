from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase
from vllm.v1.metrics import buckets

from server import metrics

REFERENCE = Path(__file__).resolve().parent.parent.parent / "docs" / "operations" / "metrics.md"


def test_the_buckets_are_those_of_vllm_s_histograms_of_the_same() -> None:
    assert metrics.FIRST_TOKEN_SECONDS == buckets.TIME_TO_FIRST_TOKEN_BUCKETS
    assert metrics.INTER_TOKEN_SECONDS == buckets.INTER_TOKEN_LATENCY_BUCKETS
    assert metrics.E2E_SECONDS == buckets.REQUEST_LATENCY_BUCKETS


def test_every_metric_says_what_it_is_and_none_has_a_colon() -> None:
    for family in metrics.Metrics().registry.collect():
        assert len(family.documentation) > 10, family.name
        assert ":" not in family.name


def rows() -> list[str]:
    """A row of docs/operations/metrics.md for each metric, in the order they are made."""
    made = []
    for metric in metrics.Metrics().registry._collector_to_names:
        assert isinstance(metric, MetricWrapperBase)
        (family,) = metric.describe()
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = ", ".join(f"`{label}`" for label in metric._labelnames)
        made.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    return made


def test_the_reference_is_what_the_metrics_say_of_themselves() -> None:
    assert [line for line in REFERENCE.read_text().splitlines() if line.startswith("| `")] == rows()
