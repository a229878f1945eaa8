"""Our Prometheus metrics, beside vLLM's own. Label values come from fixed sets, so series stay bounded."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """One set of metrics for one server; nothing is registered globally."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "lora_compose_requests",
            "Generating requests, by kind (base, single, stack, merge) and by HTTP status class",
            ["kind", "status"],
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "lora_compose_in_flight_requests", "Generating requests being answered", registry=self.registry
        )
        self.engine_up = Gauge("lora_compose_engine_up", "Whether an engine runs", registry=self.registry)
        self.engine_restarts = Counter(
            "lora_compose_engine_restarts",
            "Engines started in the place of one that died",
            registry=self.registry,
        )
        self.registered = Gauge(
            "lora_compose_registered_adapters", "Adapters in the registry", registry=self.registry
        )
        self.registrations = Counter(
            "lora_compose_registrations",
            "Registrations, by outcome (created, unchanged, refused)",
            ["outcome"],
            registry=self.registry,
        )
        self.resident = Gauge(
            "lora_compose_prepared_adapters",
            "Adapters in the engine's host memory, or on their way there",
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
        self.merge_seconds = Histogram(
            "lora_compose_merge_duration_seconds",
            "Merging adapters into one, outside the engine",
            buckets=SECONDS,
            registry=self.registry,
        )

    def text(self, *others: CollectorRegistry) -> bytes:
        """The exposition of ours and of other registries."""
        return b"".join(generate_latest(registry) for registry in (self.registry, *others))
