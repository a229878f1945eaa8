"""Our Prometheus metrics, beside vLLM's own. Label values come from fixed sets, so series stay bounded.

Requests by adapter, in a bounded number of series.

A label per adapter grows with whatever is registered. Here the first names that are asked for get a series
each, the others share one, and a name that is removed gives its series back.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from lora_compose.server.versions import DISTRIBUTION, version_of, vllm_version

OTHERS = "(others)"
"""No adapter can have this name."""
MAX_NAMES = 100


class AdapterRequests:
    """Counts into `counter`, whose only label is the adapter's name. Belongs to the event loop."""

    def __init__(self, counter: Counter, max_names: int = MAX_NAMES) -> None:
        self._counter = counter
        self._max_names = max_names
        self._names: set[str] = set()

    def count(self, names: Iterable[str]) -> None:
        """One more request that uses these adapters, which all exist."""
        for name in names:
            if len(self._names) < self._max_names:
                self._names.add(name)
            self._counter.labels(name if name in self._names else OTHERS).inc()

    def forget(self, name: str) -> None:
        """The adapter is removed: so is its series, and its place is free."""
        if name in self._names:
            self._names.discard(name)
            self._counter.remove(name)


SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# Those of vLLM's histograms of the same quantities, so that the two can be laid over each other.
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
    """One metric of the table below. Each `Metrics` makes its own, as the attribute of the row's name."""

    kind: type[Kind]
    name: str
    documentation: str
    labels: tuple[str, ...] = ()
    buckets: Sequence[float] | None = None

    def make(self, registry: CollectorRegistry) -> Kind:
        options: dict[str, Any] = {} if self.buckets is None else {"buckets": self.buckets}
        return self.kind(self.name, self.documentation, self.labels, registry=registry, **options)

    def __get__(self, metrics: "Metrics", _: type) -> Kind:
        """Says the attribute's type. It is never called: the metric itself hides the row."""
        raise AttributeError(self.name)


class Metrics:
    """One set of metrics for one server; nothing is registered globally."""

    ready = MetricRow(Gauge, "lora_compose_ready", "Whether /readyz says to send traffic here")
    engine_up = MetricRow(Gauge, "lora_compose_engine_up", "Whether an engine runs")
    engine_restarts = MetricRow(
        Counter, "lora_compose_engine_restarts", "Engines started in the place of one that died"
    )
    build_info = MetricRow(
        Gauge,
        "lora_compose_build_info",
        "Always 1; the versions are its labels",
        ("version", "vllm", "torch"),
    )
    free_bytes = MetricRow(
        Gauge, "lora_compose_data_dir_free_bytes", "Free on the disk that holds the registry"
    )

    http_requests = MetricRow(
        Counter,
        "lora_compose_http_requests",
        "Requests of any kind, by route and HTTP status (none: the client left before a reply began)",
        ("route", "status"),
    )
    refusals = MetricRow(
        Counter, "lora_compose_refusals", "Replies with an error, by the error's code", ("code",)
    )
    stream_errors = MetricRow(
        Counter, "lora_compose_stream_errors", "Streams that ended with an error event after a 200"
    )
    requests = MetricRow(
        Counter,
        "lora_compose_requests",
        "Generating requests, by kind (base, single, stack, merge; unresolved: refused before it was "
        "known) and by HTTP status class",
        ("kind", "status"),
    )
    first_token_seconds = MetricRow(
        Histogram,
        "lora_compose_time_to_first_token_seconds",
        "From a request's arrival to its stream's first event: waiting, preparing and merging included",
        ("kind",),
        buckets=FIRST_TOKEN_SECONDS,
    )
    inter_token_seconds = MetricRow(
        Histogram,
        "lora_compose_inter_token_latency_seconds",
        "Between two events of a stream",
        ("kind",),
        buckets=INTER_TOKEN_SECONDS,
    )
    e2e_seconds = MetricRow(
        Histogram,
        "lora_compose_e2e_request_latency_seconds",
        "From a generating request's arrival to the end of its reply, where it was answered",
        ("kind",),
        buckets=E2E_SECONDS,
    )
    requests_by_adapter = MetricRow(
        Counter,
        "lora_compose_adapter_requests",
        "Generating requests that use an adapter, by its name; beyond 100 names the rest is (others)",
        ("adapter",),
    )
    in_flight = MetricRow(Gauge, "lora_compose_in_flight_requests", "Generating requests being answered")

    registered = MetricRow(Gauge, "lora_compose_registered_adapters", "Adapters in the registry")
    registrations = MetricRow(
        Counter,
        "lora_compose_registrations",
        "Registrations, by outcome (created, unchanged, refused)",
        ("outcome",),
    )
    registration_seconds = MetricRow(
        Histogram,
        "lora_compose_registration_duration_seconds",
        "Copying, checking and registering an adapter, refused ones included",
        buckets=SECONDS,
    )
    pinned = MetricRow(
        Gauge, "lora_compose_pinned_adapters", "Adapters that are never evicted from the engine's host memory"
    )
    resident = MetricRow(
        Gauge, "lora_compose_prepared_adapters", "Adapters in the engine's host memory, or on their way there"
    )
    capacity = MetricRow(
        Gauge,
        "lora_compose_host_capacity_adapters",
        "Adapters that fit in the engine's host memory (--max-cpu-loras)",
    )
    slots = MetricRow(
        Gauge, "lora_compose_slots", "Engine slots there are: sets of adapters in use at a time"
    )
    active = MetricRow(Gauge, "lora_compose_active_slots", "Engine slots with requests in flight")
    queued = MetricRow(
        Gauge, "lora_compose_queued_requests", "Requests waiting for a slot or for room in host memory"
    )
    hits = MetricRow(
        Counter,
        "lora_compose_residency_hits",
        "Requests whose adapters were all in host memory, or on their way there",
    )
    misses = MetricRow(
        Counter, "lora_compose_residency_misses", "Requests for which something had to be prepared"
    )
    evictions = MetricRow(Counter, "lora_compose_evictions", "Adapters removed from the engine's host memory")
    queue_seconds = MetricRow(
        Histogram,
        "lora_compose_queue_duration_seconds",
        "Waiting for a slot and for room in host memory",
        buckets=SECONDS,
    )
    prepare_seconds = MetricRow(
        Histogram,
        "lora_compose_prepare_duration_seconds",
        "Building an adapter in the engine's host memory",
        buckets=SECONDS,
    )
    prepare_failures = MetricRow(
        Counter, "lora_compose_prepare_failures", "Adapters the engine could not build"
    )
    merge_seconds = MetricRow(
        Histogram,
        "lora_compose_merge_duration_seconds",
        "Merging adapters into one, outside the engine",
        buckets=SECONDS,
    )
    merges_in_progress = MetricRow(
        Gauge, "lora_compose_merges_in_progress", "Merges being built or waiting for it"
    )
    merge_failures = MetricRow(Counter, "lora_compose_merge_failures", "Merges that could not be built")

    fused = MetricRow(Gauge, "lora_compose_fused", "Whether a composition is folded into the base weights")
    switch_seconds = MetricRow(
        Histogram,
        "lora_compose_fusion_switch_duration_seconds",
        "How long generation stood still for a switch of the base weights (fusing, restoring)",
        ("kind",),
        buckets=SECONDS,
    )
    switches_in_progress = MetricRow(
        Gauge,
        "lora_compose_fusion_switches_in_progress",
        "Whether the base weights are being loaded: generation may stand still",
    )
    switch_failures = MetricRow(
        Counter,
        "lora_compose_fusion_switch_failures",
        "Switches of the base weights that failed while loading (fusing, restoring)",
        ("kind",),
    )
    lora_overhead = MetricRow(
        Gauge,
        "lora_compose_lora_overhead_ratio",
        "Extra time of a token with one adapter against one without, as --auto-fuse measures it here",
    )
    auto_fuse_decisions = MetricRow(
        Counter,
        "lora_compose_auto_fuse_decisions",
        "Decisions of --auto-fuse, one a second (keep, fuse, restore)",
        ("action",),
    )
    auto_fuse_gain = MetricRow(
        Gauge,
        "lora_compose_auto_fuse_expected_gain_ratio",
        "Serving time the last decision of --auto-fuse is to save if the mix lasts; 0 for keep",
    )

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for attribute, row in vars(Metrics).items():
            if isinstance(row, MetricRow):
                setattr(self, attribute, row.make(self.registry))
        self.build_info.labels(version_of(DISTRIBUTION), vllm_version(), version_of("torch")).set(1)
        self.adapter_requests = AdapterRequests(self.requests_by_adapter)

    def text(self, *others: CollectorRegistry) -> bytes:
        """The exposition of ours and of other registries."""
        return b"".join(generate_latest(registry) for registry in (self.registry, *others))
