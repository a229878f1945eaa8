"""Finds the key of a request. Keys that another process creates or revokes take effect within a second."""

import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from starlette.types import Scope

from lora_compose.server.http.benchmark_traffic import BenchmarkTraffic
from lora_compose.server.tenants.key import BENCHMARK, OPERATOR, Key, digest_of

REFRESH_SECONDS = 1.0


@dataclass
class Keyring:
    """All valid keys. `load` reads the stored ones; `operator_secrets` come from the command line."""

    load: Callable[[], Mapping[str, Key]]
    operator_secrets: Sequence[str]
    traffic: BenchmarkTraffic
    may_open: Callable[[], bool] = lambda: False
    """Whether every request is the operator's while there is no key."""
    clock: Callable[[], float] = time.monotonic
    is_open: bool = field(init=False, default=False)
    """Whether every request is the operator's now."""
    _keys: Mapping[str, Key] = field(default_factory=dict)
    _read: float = float("-inf")

    def __post_init__(self) -> None:
        self._own = [digest_of(secret.encode()) for secret in self.operator_secrets]
        self._refresh()

    @property
    def has_keys(self) -> bool:
        """Whether there is any key."""
        return bool(self._own or self._keys)

    def owner(self, scope: Scope) -> Key | None:
        """The key of the request, or None if it has no valid key. Raises StorageUnavailable."""
        self._refresh()
        if self.traffic.is_own(scope):
            return BENCHMARK
        if self.is_open:
            return OPERATOR
        values = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(values) != 1:
            return None
        scheme, _, secret = values[0].partition(b" ")
        digest = digest_of(secret)
        # All digests are compared, so that the time does not depend on which one matches.
        owner = None
        for known, key in [*((own, OPERATOR) for own in self._own), *self._keys.items()]:
            if hmac.compare_digest(digest, known):
                owner = key
        return owner if scheme.lower() == b"bearer" else None

    def _refresh(self) -> None:
        now = self.clock()
        if now - self._read >= REFRESH_SECONDS:
            self._keys, self._read = self.load(), now
            self.is_open = not self.has_keys and self.may_open()
