from prometheus_client import CollectorRegistry, Counter

from lora_compose.server.metrics import OTHERS, AdapterRequests


def counted(max_names: int) -> tuple[AdapterRequests, CollectorRegistry]:
    registry = CollectorRegistry()
    counter = Counter("requests", "by adapter", ["adapter"], registry=registry)
    return AdapterRequests(counter, max_names), registry


def value(registry: CollectorRegistry, name: str) -> float | None:
    return registry.get_sample_value("requests_total", {"adapter": name})


def test_ten_thousand_names_are_a_bounded_number_of_series() -> None:
    requests, registry = counted(max_names=5)
    for number in range(10_000):
        requests.count([f"a{number}"])
    (family,) = registry.collect()
    assert len([sample for sample in family.samples if sample.name.endswith("_total")]) == 6
    assert value(registry, OTHERS) == 9_995


def test_a_removed_adapter_takes_its_series_with_it_and_makes_room() -> None:
    requests, registry = counted(max_names=1)
    requests.count(["first", "second"])
    requests.remove("first")
    requests.remove("never-asked-for")
    requests.count(["second", "second"])
    assert value(registry, "first") is None
    assert value(registry, "second") == 2
