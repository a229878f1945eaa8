"""Our Prometheus metrics, beside vLLM's own. Label values come from fixed sets, so series stay bounded."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from server.adapter_requests import AdapterRequests
from server.installed import DISTRIBUTION, version_of, vllm_version

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


class Metrics:
    """One set of metrics for one server; nothing is registered globally."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._about_the_server()
        self._about_requests()
        self._about_adapters()
        self._about_fusion()

    def _about_the_server(self) -> None:
        self.ready = Gauge(
            "lora_compose_ready", "Whether /readyz says to send traffic here", registry=self.registry
        )
        self.engine_up = Gauge("lora_compose_engine_up", "Whether an engine runs", registry=self.registry)
        self.engine_restarts = Counter(
            "lora_compose_engine_restarts",
            "Engines started in the place of one that died",
            registry=self.registry,
        )
        build = Gauge(
            "lora_compose_build_info",
            "Always 1; the versions are its labels",
            ["version", "vllm", "torch"],
            registry=self.registry,
        )
        build.labels(version_of(DISTRIBUTION), vllm_version(), version_of("torch")).set(1)
        self.free_bytes = Gauge(
            "lora_compose_data_dir_free_bytes",
            "Free on the disk that holds the registry",
            registry=self.registry,
        )

    def _about_requests(self) -> None:
        self.http_requests = Counter(
            "lora_compose_http_requests",
            "Requests of any kind, by route and HTTP status (none: the client left before a reply began)",
            ["route", "status"],
            registry=self.registry,
        )
        self.refusals = Counter(
            "lora_compose_refusals",
            "Replies with an error, by the error's code",
            ["code"],
            registry=self.registry,
        )
        self.stream_errors = Counter(
            "lora_compose_stream_errors",
            "Streams that ended with an error event after a 200",
            registry=self.registry,
        )
        self.requests = Counter(
            "lora_compose_requests",
            "Generating requests, by kind (base, single, stack, merge; unresolved: refused before it was "
            "known) and by HTTP status class",
            ["kind", "status"],
            registry=self.registry,
        )
        self.first_token_seconds = Histogram(
            "lora_compose_time_to_first_token_seconds",
            "From a request's arrival to its stream's first event: waiting, preparing and merging included",
            ["kind"],
            buckets=FIRST_TOKEN_SECONDS,
            registry=self.registry,
        )
        self.inter_token_seconds = Histogram(
            "lora_compose_inter_token_latency_seconds",
            "Between two events of a stream",
            ["kind"],
            buckets=INTER_TOKEN_SECONDS,
            registry=self.registry,
        )
        self.e2e_seconds = Histogram(
            "lora_compose_e2e_request_latency_seconds",
            "From a generating request's arrival to the end of its reply, where it was answered",
            ["kind"],
            buckets=E2E_SECONDS,
            registry=self.registry,
        )
        by_adapter = Counter(
            "lora_compose_adapter_requests",
            "Generating requests that use an adapter, by its name; beyond 100 names the rest is (others)",
            ["adapter"],
            registry=self.registry,
        )
        self.adapter_requests = AdapterRequests(by_adapter)
        self.in_flight = Gauge(
            "lora_compose_in_flight_requests", "Generating requests being answered", registry=self.registry
        )

    def _about_adapters(self) -> None:
        self.registered = Gauge(
            "lora_compose_registered_adapters", "Adapters in the registry", registry=self.registry
        )
        self.registrations = Counter(
            "lora_compose_registrations",
            "Registrations, by outcome (created, unchanged, refused)",
            ["outcome"],
            registry=self.registry,
        )
        self.registration_seconds = Histogram(
            "lora_compose_registration_duration_seconds",
            "Copying, checking and registering an adapter, refused ones included",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.pinned = Gauge(
            "lora_compose_pinned_adapters",
            "Adapters that are never evicted from the engine's host memory",
            registry=self.registry,
        )
        self.resident = Gauge(
            "lora_compose_prepared_adapters",
            "Adapters in the engine's host memory, or on their way there",
            registry=self.registry,
        )
        self.capacity = Gauge(
            "lora_compose_host_capacity_adapters",
            "Adapters that fit in the engine's host memory (--max-cpu-loras)",
            registry=self.registry,
        )
        self.slots = Gauge(
            "lora_compose_slots",
            "Engine slots there are: sets of adapters in use at a time",
            registry=self.registry,
        )
        self.active = Gauge(
            "lora_compose_active_slots", "Engine slots with requests in flight", registry=self.registry
        )
        self.queued = Gauge(
            "lora_compose_queued_requests",
            "Requests waiting for a slot or for room in host memory",
            registry=self.registry,
        )
        self.hits = Counter(
            "lora_compose_residency_hits",
            "Requests whose adapters were all in host memory, or on their way there",
            registry=self.registry,
        )
        self.misses = Counter(
            "lora_compose_residency_misses",
            "Requests for which something had to be prepared",
            registry=self.registry,
        )
        self.evictions = Counter(
            "lora_compose_evictions", "Adapters removed from the engine's host memory", registry=self.registry
        )
        self.queue_seconds = Histogram(
            "lora_compose_queue_duration_seconds",
            "Waiting for a slot and for room in host memory",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.prepare_seconds = Histogram(
            "lora_compose_prepare_duration_seconds",
            "Building an adapter in the engine's host memory",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.prepare_failures = Counter(
            "lora_compose_prepare_failures",
            "Adapters the engine could not build",
            registry=self.registry,
        )
        self.merge_seconds = Histogram(
            "lora_compose_merge_duration_seconds",
            "Merging adapters into one, outside the engine",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.merges_in_progress = Gauge(
            "lora_compose_merges_in_progress", "Merges being built or waiting for it", registry=self.registry
        )
        self.merge_failures = Counter(
            "lora_compose_merge_failures", "Merges that could not be built", registry=self.registry
        )

    def _about_fusion(self) -> None:
        self.fused = Gauge(
            "lora_compose_fused",
            "Whether a composition is folded into the base weights",
            registry=self.registry,
        )
        self.switch_seconds = Histogram(
            "lora_compose_fusion_switch_duration_seconds",
            "How long generation stood still for a switch of the base weights (fusing, restoring)",
            ["kind"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.switches_in_progress = Gauge(
            "lora_compose_fusion_switches_in_progress",
            "Whether the base weights are being loaded: generation may stand still",
            registry=self.registry,
        )
        self.switch_failures = Counter(
            "lora_compose_fusion_switch_failures",
            "Switches of the base weights that failed while loading (fusing, restoring)",
            ["kind"],
            registry=self.registry,
        )
        self.lora_overhead = Gauge(
            "lora_compose_lora_overhead_ratio",
            "Extra time of a token with one adapter against one without, as --auto-fuse measures it here",
            registry=self.registry,
        )
        self.auto_fuse_decisions = Counter(
            "lora_compose_auto_fuse_decisions",
            "Decisions of --auto-fuse, one a second (keep, fuse, restore)",
            ["action"],
            registry=self.registry,
        )
        self.auto_fuse_gain = Gauge(
            "lora_compose_auto_fuse_expected_gain_ratio",
            "Serving time the last decision of --auto-fuse is to save if the mix lasts; 0 for keep",
            registry=self.registry,
        )

    def text(self, *others: CollectorRegistry) -> bytes:
        """The exposition of ours and of other registries."""
        return b"".join(generate_latest(registry) for registry in (self.registry, *others))
