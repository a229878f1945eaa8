from types import SimpleNamespace

from prometheus_client import REGISTRY, Gauge
from vllm.v1.metrics.prometheus import unregister_vllm_metrics

from lora_compose.server.engine.frontend.lora_requests_info import NAME, replace_lora_info

LABELS = ["max_lora", "waiting_lora_adapters", "running_lora_adapters"]


def logger() -> SimpleNamespace:
    """A logger with the same attributes as vLLM's Prometheus logger."""
    return SimpleNamespace(gauge_lora_info=Gauge(NAME, "Running stats on lora requests.", LABELS))


def client(logger: SimpleNamespace) -> SimpleNamespace:
    return SimpleNamespace(logger_manager=SimpleNamespace(stat_loggers=[SimpleNamespace(), logger]))


def series() -> list[dict[str, str]]:
    return [s.labels for family in REGISTRY.collect() if family.name == NAME for s in family.samples]


def test_unless_asked_for_vllm_has_no_gauge_to_write_to() -> None:
    written = logger()
    replace_lora_info(client(written), publish=False)
    assert written.gauge_lora_info is None
    assert series() == []


def test_an_engine_that_starts_anew_finds_the_name_free() -> None:
    replace_lora_info(client(logger()), publish=True)
    unregister_vllm_metrics()
    again = logger()
    replace_lora_info(client(again), publish=False)
    assert series() == []


def test_asked_for_there_is_one_series_however_many_mixes_there_were() -> None:
    written = logger()
    replace_lora_info(client(written), publish=True)
    try:
        for number in range(100):
            labels = {"max_lora": 8, "waiting_lora_adapters": "", "running_lora_adapters": f"a@1:{number}"}
            written.gauge_lora_info.labels(**labels).set_to_current_time()
        assert series() == [{"max_lora": "8", "waiting_lora_adapters": "", "running_lora_adapters": "a@1:99"}]
    finally:
        REGISTRY.unregister(written.gauge_lora_info)
