"""Limits the metric `vllm:lora_requests_info` to one series.

vLLM adds a series for each mix of adapters in flight and never removes one. The number of compositions has no
limit, so that would be a leak. Routers that choose a server by this metric read the newest series only. So
only that one is published, and only with `--lora-requests-info`.
"""

import time
from collections.abc import Iterator
from typing import Any, Self

from prometheus_client import REGISTRY, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

NAME = "vllm:lora_requests_info"


class NewestMixGauge(Collector):
    """Replaces vLLM's gauge: one series, with the labels that the engine set last."""

    # vLLM finds its own collectors by this attribute, and unregisters them before an engine starts again.
    _name = NAME

    def __init__(self) -> None:
        self._labels: dict[str, str] = {}
        self._set_at = 0.0

    def labels(self, **labels: Any) -> Self:
        """Like `Gauge.labels`."""
        self._labels = {name: str(value) for name, value in labels.items()}
        return self

    def set_to_current_time(self) -> None:
        """Like `Gauge.set_to_current_time`."""
        self._set_at = time.time()

    @override
    def collect(self) -> Iterator[Metric]:
        labels, set_at = self._labels, self._set_at
        family = GaugeMetricFamily(NAME, "Running stats on lora requests.", labels=list(labels))
        if set_at:
            family.add_metric(list(labels.values()), set_at)
        yield family


def replace_lora_info(client: Any, publish: bool) -> None:
    """Remove the gauge from vLLM's logger. With `publish`, put `NewestMixGauge` in its place."""
    for logger in client.logger_manager.stat_loggers if client.logger_manager else ():
        gauge = getattr(logger, "gauge_lora_info", None)
        if gauge is None:
            continue
        REGISTRY.unregister(gauge)
        logger.gauge_lora_info = None
        if publish:
            logger.gauge_lora_info = NewestMixGauge()
            REGISTRY.register(logger.gauge_lora_info)
