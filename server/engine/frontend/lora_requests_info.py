"""Keeps `vllm:lora_requests_info` from growing.

vLLM gives each mix of adapters in flight a series of its own, for ever: with compositions, of which there is
no end, that is a leak. Routers that pick a server by it look at the newest only, so that is all there is, and
only if asked for.
"""

import time
from collections.abc import Iterator
from typing import Any, Self

from prometheus_client import REGISTRY, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

NAME = "vllm:lora_requests_info"


class NewestMix(Collector):
    """Takes the place of vLLM's gauge: what the engine said last, in one series."""

    # By this attribute vLLM finds its own, to take them out of the registry before an engine starts anew.
    _name = NAME

    def __init__(self) -> None:
        self._labels: dict[str, str] = {}
        self._told = 0.0

    def labels(self, **labels: Any) -> Self:
        """As the gauge's."""
        self._labels = {name: str(value) for name, value in labels.items()}
        return self

    def set_to_current_time(self) -> None:
        """As the gauge's."""
        self._told = time.time()

    @override
    def collect(self) -> Iterator[Metric]:
        labels, told = self._labels, self._told
        family = GaugeMetricFamily(NAME, "Running stats on lora requests.", labels=list(labels))
        if told:
            family.add_metric(list(labels.values()), told)
        yield family


def bound_lora_info(client: Any, publish: bool) -> None:
    """Take the gauge out of vLLM's logger, and with `publish` put the newest mix in its place."""
    for logger in client.logger_manager.stat_loggers if client.logger_manager else ():
        gauge = getattr(logger, "gauge_lora_info", None)
        if gauge is None:
            continue
        REGISTRY.unregister(gauge)
        logger.gauge_lora_info = None
        if publish:
            logger.gauge_lora_info = NewestMix()
            REGISTRY.register(logger.gauge_lora_info)
