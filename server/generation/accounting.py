"""Counts a generating request: in the metrics, as benchmark or user traffic, and in the quotas of its key."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import Scope

from lora_compose.server.compositions.resolver import ResolvedComposition
from lora_compose.server.http.access_log import DIGESTS
from lora_compose.server.http.benchmark_traffic import BenchmarkTraffic
from lora_compose.server.http.body import BYTES_A_TOKEN
from lora_compose.server.http.request_metrics import KIND, UNRESOLVED
from lora_compose.server.metrics import Metrics
from lora_compose.server.tenants.caller import Caller
from lora_compose.server.tenants.token_charging import charging

FREE_BYTES = 64 * 1024
"""A body of at most this size is not charged before it is read."""


@dataclass(frozen=True)
class Accounting:
    """The accounting of one server. Call `arrived` first, then `answering`."""

    metrics: Metrics
    traffic: BenchmarkTraffic

    def arrived(self, scope: Scope, longest: int, *, generates: bool) -> None:
        """Account for a request before its body of at most `longest` bytes is read.

        If the key has a token quota, a body over `FREE_BYTES` is charged now, because parsing and refusing it
        also cost time. Raises QuotaExceeded if the token quota is used up.
        """
        caller: Caller = scope["state"]["caller"]
        if generates:
            scope["state"][KIND] = UNRESOLVED
        caller.account.require("tokens_per_minute", 0)
        declared = Headers(scope=scope).get("content-length", str(longest))
        if declared.isdigit() and int(declared) > FREE_BYTES:
            caller.charge_tokens(min(int(declared), longest) // BYTES_A_TOKEN)

    @contextmanager
    def answering(
        self, scope: Scope, resolved: ResolvedComposition | None, sequences: int, *, generates: bool
    ) -> Iterator[None]:
        """Account for a request while it is answered with `sequences` sequences. Raises QuotaExceeded."""
        state, caller = scope["state"], scope["state"]["caller"]
        if resolved is not None:
            state[DIGESTS] = [version.digest[:12] for _, version in resolved.versions]
        if generates:
            state[KIND] = _kind(resolved)
            self.metrics.adapter_requests.count(resolved.names if resolved else ())
        with (
            self.metrics.in_flight.track_inprogress(),
            self.traffic.counted(scope),
            caller.account.sequences(sequences),
            charging(caller.charge_tokens if caller.pays_tokens else None),
        ):
            yield


def _kind(resolved: ResolvedComposition | None) -> str:
    if resolved is None:
        return "base"
    if not resolved.composition.is_stack:
        return "merge"
    return "single" if len(resolved.versions) == 1 else "stack"
