"""How a generating request is counted: in the metrics, as benchmark or user traffic, and in its quotas."""

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from starlette.types import Scope

from server.metrics import Metrics
from server.request_body import BYTES_A_TOKEN
from server.request_log import DIGESTS
from server.request_metrics import KIND, UNRESOLVED
from server.resolver import Pinned
from server.tenants.caller import Caller
from server.token_charging import charging
from server.traffic import Traffic

FREE_BYTES = 64 * 1024


@dataclass(frozen=True)
class Accounting:
    """Of one server."""

    metrics: Metrics
    traffic: Traffic

    def charge_body(self, declared: str | None, longest: int, caller: Caller) -> None:
        """Charge a body over 64 KiB before it is read, because parsing and refusing it also cost time.

        `declared` is the content-length header. Raises QuotaExceeded where the tokens are used up.
        """
        caller.account.demand("tokens_per_minute", 0)
        size = str(longest) if declared is None else declared
        if size.isdigit() and int(size) > FREE_BYTES:
            caller.charge_tokens(min(int(size), longest) // BYTES_A_TOKEN)

    def unresolved(self, state: MutableMapping[str, Any]) -> None:
        """The request has arrived, and its composition is not known yet."""
        state[KIND] = UNRESOLVED

    def resolved(self, state: MutableMapping[str, Any], found: Pinned | None) -> None:
        """What a request that generates asks for: for the metrics and the log."""
        state[KIND] = _kind(found)
        self.metrics.adapter_requests.count(found.names if found else ())
        self.named(state, found)

    def named(self, state: MutableMapping[str, Any], found: Pinned | None) -> None:
        """What a request that only uses names asks for: for the log."""
        if found is not None:
            state[DIGESTS] = [version.digest[:12] for _, version in found.versions]

    @contextmanager
    def answering(self, scope: Scope, caller: Caller, sequences: int) -> Iterator[None]:
        """For as long as a request for so many sequences is answered. Raises QuotaExceeded."""
        with (
            self.metrics.in_flight.track_inprogress(),
            self.traffic.counted(scope),
            caller.account.sequences(sequences),
            charging(caller.charge_tokens if caller.pays_tokens else None),
        ):
            yield


def _kind(resolved: Pinned | None) -> str:
    if resolved is None:
        return "base"
    if not resolved.composition.is_stack:
        return "merge"
    return "single" if len(resolved.versions) == 1 else "stack"
