"""The Prometheus metrics of this project. vLLM has its own. The number of series is bounded.

Label values come from fixed sets, except adapter names. The first `MAX_NAMES` adapters that are requested get
one series each, and all other adapters share the series `OTHERS`. Removing an adapter frees its series.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from lora_compose.server.versions import DISTRIBUTION, version_of, vllm_version

OTHERS = "(others)"
"""The label of all further adapters. It is not a valid adapter name."""
MAX_NAMES = 100


class AdapterRequests:
    """Counts requests in `counter`, whose only label is the adapter's name. Use it on the event loop only."""

    def __init__(self, counter: Counter, max_names: int = MAX_NAMES) -> None:
        self._counter = counter
        self._max_names = max_names
        self._names: set[str] = set()

    def count(self, names: Iterable[str]) -> None:
        """Count one request that uses these adapters. All of them must exist."""
        for name in names:
            if len(self._names) < self._max_names:
                self._names.add(name)
            self._counter.labels(name if name in self._names else OTHERS).inc()

    def remove(self, name: str) -> None:
        """Remove the adapter's series, so that another adapter can have one."""
        if name in self._names:
            self._names.discard(name)
            self._counter.remove(name)


SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# The buckets of vLLM's histograms of the same quantities, so that both can be compared in one chart.
FIRST_TOKEN_SECONDS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
INTER_TOKEN_SECONDS = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
E2E_SECONDS = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
    960.0, 1920.0, 7680.0,
)  # fmt: skip


Kind = TypeVar("Kind", Counter, Gauge, Histogram)


@dataclass(frozen=True)
class MetricRow(Generic[Kind]):
    """A row of the table in `Metrics`. Each `Metrics` object has its own metric under the row's attribute."""

    kind: type[Kind]
    name: str
    documentation: str
    labels: tuple[str, ...] = ()
    buckets: Sequence[float] | None = None

    def make(self, registry: CollectorRegistry) -> Kind:
        options: dict[str, Any] = {} if self.buckets is None else {"buckets": self.buckets}
        return self.kind(self.name, self.documentation, self.labels, registry=registry, **options)

    def __get__(self, metrics: "Metrics", _: type) -> Kind:
        """Declares the attribute's type for mypy. It is never called, because the metric hides the row."""
        raise AttributeError(self.name)


class Metrics:
    """The metrics of one server. They are not in the global registry of prometheus_client."""

    ready = MetricRow(Gauge, "lora_compose_ready", "1 if /readyz answers 200, else 0")
    engine_up = MetricRow(Gauge, "lora_compose_engine_up", "1 if the engine is running, else 0")
    engine_restarts = MetricRow(
        Counter, "lora_compose_engine_restarts", "Engine restarts after an engine died"
    )
    build_info = MetricRow(
        Gauge,
        "lora_compose_build_info",
        "Always 1; the labels are the installed versions",
        ("version", "vllm", "torch"),
    )
    free_bytes = MetricRow(
        Gauge, "lora_compose_data_dir_free_bytes", "Free bytes on the disk of the data directory"
    )

    http_requests = MetricRow(
        Counter,
        "lora_compose_http_requests",
        "All requests by route and HTTP status (none: the client disconnected before the response)",
        ("route", "status"),
    )
    refusals = MetricRow(Counter, "lora_compose_refusals", "Error responses, by error code", ("code",))
    stream_errors = MetricRow(
        Counter,
        "lora_compose_stream_errors",
        "Streams that started with status 200 and ended with an error event",
    )
    requests = MetricRow(
        Counter,
        "lora_compose_requests",
        "Generating requests, by kind (base, single, stack, merge; unresolved: refused before the kind was "
        "known) and HTTP status class",
        ("kind", "status"),
    )
    first_token_seconds = MetricRow(
        Histogram,
        "lora_compose_time_to_first_token_seconds",
        "Seconds from the arrival of a request to the first event of its stream, including waiting, "
        "preparing and merging",
        ("kind",),
        buckets=FIRST_TOKEN_SECONDS,
    )
    inter_token_seconds = MetricRow(
        Histogram,
        "lora_compose_inter_token_latency_seconds",
        "Seconds between two events of a stream",
        ("kind",),
        buckets=INTER_TOKEN_SECONDS,
    )
    e2e_seconds = MetricRow(
        Histogram,
        "lora_compose_e2e_request_latency_seconds",
        "Seconds from the arrival of a generating request to the end of its response, for status 2xx",
        ("kind",),
        buckets=E2E_SECONDS,
    )
    requests_by_adapter = MetricRow(
        Counter,
        "lora_compose_adapter_requests",
        "Generating requests by adapter; after the first 100 adapters, all others count as (others)",
        ("adapter",),
    )
    in_flight = MetricRow(
        Gauge, "lora_compose_in_flight_requests", "Generating requests that are being answered"
    )

    registered = MetricRow(Gauge, "lora_compose_registered_adapters", "Adapters in the registry")
    registrations = MetricRow(
        Counter,
        "lora_compose_registrations",
        "Registrations of adapters, by outcome (created, unchanged, refused)",
        ("outcome",),
    )
    retired_versions = MetricRow(
        Counter,
        "lora_compose_retired_versions",
        "Versions that the server removed by itself, by reason (expired, replaced, superseded)",
        ("reason",),
    )
    other_base_versions = MetricRow(
        Gauge,
        "lora_compose_other_base_versions",
        "Versions that are not served, because they were registered for another base",
    )
    registration_seconds = MetricRow(
        Histogram,
        "lora_compose_registration_duration_seconds",
        "Seconds to copy, check and register an adapter, including refused adapters",
        buckets=SECONDS,
    )
    pinned = MetricRow(
        Gauge,
        "lora_compose_pinned_adapters",
        "Pinned adapters: they are never evicted from the engine's host memory",
    )
    resident = MetricRow(
        Gauge,
        "lora_compose_prepared_adapters",
        "Adapters in the engine's host memory or being prepared for it",
    )
    capacity = MetricRow(
        Gauge,
        "lora_compose_host_capacity_adapters",
        "Adapters that fit in the engine's host memory (--max-cpu-loras)",
    )
    slots = MetricRow(
        Gauge,
        "lora_compose_slots",
        "Engine slots: the number of compositions that can be in use at the same time",
    )
    active = MetricRow(Gauge, "lora_compose_active_slots", "Engine slots with requests in flight")
    queued = MetricRow(
        Gauge, "lora_compose_queued_requests", "Requests waiting for a slot or for space in host memory"
    )
    hits = MetricRow(
        Counter,
        "lora_compose_residency_hits",
        "Requests whose adapters were all in host memory or already being prepared",
    )
    misses = MetricRow(
        Counter, "lora_compose_residency_misses", "Requests that needed at least one adapter to be prepared"
    )
    evictions = MetricRow(Counter, "lora_compose_evictions", "Adapters removed from the engine's host memory")
    queue_seconds = MetricRow(
        Histogram,
        "lora_compose_queue_duration_seconds",
        "Seconds a request waited for a slot and for space in host memory",
        buckets=SECONDS,
    )
    prepare_seconds = MetricRow(
        Histogram,
        "lora_compose_prepare_duration_seconds",
        "Seconds to build an adapter in the engine's host memory",
        buckets=SECONDS,
    )
    prepare_failures = MetricRow(
        Counter, "lora_compose_prepare_failures", "Adapters that the engine could not build"
    )
    merge_seconds = MetricRow(
        Histogram,
        "lora_compose_merge_duration_seconds",
        "Seconds to merge adapters into one, outside the engine",
        buckets=SECONDS,
    )
    merges_in_progress = MetricRow(
        Gauge, "lora_compose_merges_in_progress", "Merges that are being built or are waiting to be built"
    )
    merge_failures = MetricRow(Counter, "lora_compose_merge_failures", "Merges that could not be built")
    saved_merges = MetricRow(
        Gauge,
        "lora_compose_saved_merges",
        "Saved compositions that are merges, by the state of their build (ready, building, waiting, failed, "
        "unbuilt)",
        ("state",),
    )
    merge_cache_bytes = MetricRow(
        Gauge, "lora_compose_merge_cache_bytes", "Bytes of the merges that are kept on the disk"
    )
    merge_evictions = MetricRow(
        Counter,
        "lora_compose_merge_cache_evictions",
        "Merges deleted from the disk because of --merge-cache-bytes",
    )

    fused = MetricRow(
        Gauge, "lora_compose_fused", "1 if a composition is fused into the base weights, else 0"
    )
    switch_seconds = MetricRow(
        Histogram,
        "lora_compose_fusion_switch_duration_seconds",
        "Seconds that generation was paused while the base weights were switched (fusing, restoring)",
        ("kind",),
        buckets=SECONDS,
    )
    switches_in_progress = MetricRow(
        Gauge,
        "lora_compose_fusion_switches_in_progress",
        "1 while the base weights are being switched and generation may be paused, else 0",
    )
    switch_failures = MetricRow(
        Counter,
        "lora_compose_fusion_switch_failures",
        "Switches of the base weights that failed while loading, by kind (fusing, restoring)",
        ("kind",),
    )
    lora_overhead = MetricRow(
        Gauge,
        "lora_compose_lora_overhead_ratio",
        "Extra time per token with one adapter, relative to no adapter, measured by --auto-fuse",
    )
    auto_fuse_decisions = MetricRow(
        Counter,
        "lora_compose_auto_fuse_decisions",
        "Decisions of --auto-fuse, one per second, by action (keep, fuse, restore)",
        ("action",),
    )
    auto_fuse_gain = MetricRow(
        Gauge,
        "lora_compose_auto_fuse_expected_gain_ratio",
        "Share of serving time that the last decision of --auto-fuse saves if traffic stays the same; "
        "0 for keep",
    )

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for attribute, row in vars(Metrics).items():
            if isinstance(row, MetricRow):
                setattr(self, attribute, row.make(self.registry))
        self.build_info.labels(version_of(DISTRIBUTION), vllm_version(), version_of("torch")).set(1)
        self.adapter_requests = AdapterRequests(self.requests_by_adapter)

    def text(self, *others: CollectorRegistry) -> bytes:
        """Our metrics and those of `others` in the Prometheus text format."""
        return b"".join(generate_latest(registry) for registry in (self.registry, *others))
