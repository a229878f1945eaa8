from pathlib import Path

import torch
from prometheus_client.metrics import MetricWrapperBase
from vllm.v1.metrics import buckets

from lora_compose.adapters.admission.admit import AdmissionLimits
from lora_compose.adapters.admission.base_model import BaseShapes
from lora_compose.adapters.registry.registry import Registry
from lora_compose.server import metrics
from lora_compose.server.registration import Offer, Registration
from tests.adapters.written_adapters import SHAPES, write_peft

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "operations" / "metrics.md"


def test_the_buckets_are_those_of_vllm_s_histograms_of_the_same() -> None:
    assert metrics.FIRST_TOKEN_SECONDS == buckets.TIME_TO_FIRST_TOKEN_BUCKETS
    assert metrics.INTER_TOKEN_SECONDS == buckets.INTER_TOKEN_LATENCY_BUCKETS
    assert metrics.E2E_SECONDS == buckets.REQUEST_LATENCY_BUCKETS


def test_every_metric_says_what_it_is_and_none_has_a_colon() -> None:
    for family in metrics.Metrics().registry.collect():
        assert len(family.documentation) > 10, family.name
        assert ":" not in family.name


def rows() -> list[str]:
    """A row of docs/operations/metrics.md for each metric, in the order of the table."""
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


def series(made: metrics.Metrics) -> set[tuple[str, ...]]:
    return {
        (sample.name, *sorted(f"{key}={value}" for key, value in sample.labels.items()))
        for family in made.registry.collect()
        for sample in family.samples
    }


def test_registering_adapters_adds_no_series(tmp_path: Path) -> None:
    made, base = metrics.Metrics(), BaseShapes(dict(SHAPES), "f00d", "made-up")
    limits = AdmissionLimits(max_lora_rank=8, dtype=torch.float32)
    with Registry(tmp_path / "data") as registry:

        def changed() -> None:
            made.registered.set(registry.count())

        registration = Registration(registry, base, limits, (tmp_path,), False, made, changed)
        counts = []
        for number in range(20):
            directory = write_peft(tmp_path / f"a{number}", seed=number).directory
            registration.from_path(Offer(f"adapter{number}"), str(directory))
            counts.append(series(made))
    assert counts[0] == counts[-1]
    assert made.registry.get_sample_value("lora_compose_registered_adapters") == 20
