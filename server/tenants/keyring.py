"""Whose key a request comes with. Keys made or revoked by another process count within a second."""

import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from starlette.types import Scope

from lora_compose.server.http.benchmark_traffic import BenchmarkTraffic
from lora_compose.server.tenants.key import BENCHMARK, OPERATOR, Key, digest_of

FRESH_SECONDS = 1.0


@dataclass
class Keyring:
    """`load` reads the stored keys; `given` are the operator's own, from the command line."""

    load: Callable[[], Mapping[str, Key]]
    given: Sequence[str]
    traffic: BenchmarkTraffic
    is_open: bool = False
    """Whether requests without a key are the operator's for as long as there is no key."""
    clock: Callable[[], float] = time.monotonic
    _keys: Mapping[str, Key] = field(default_factory=dict)
    _read: float = float("-inf")

    def __post_init__(self) -> None:
        self._own = [digest_of(secret.encode()) for secret in self.given]
        self._refresh()

    @property
    def has_keys(self) -> bool:
        """Whether any key is known."""
        return bool(self._own or self._keys)

    def owner(self, scope: Scope) -> Key | None:
        """None where it is nobody's. Raises StorageUnavailable where the keys cannot be read."""
        self._refresh()
        if self.traffic.is_own(scope):
            return BENCHMARK
        if self.is_open:
            return OPERATOR
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1:
            return None
        scheme, _, secret = given[0].partition(b" ")
        digest = digest_of(secret)
        # Every known digest is compared, whichever matches: the time tells nothing.
        found = None
        for known, key in [*((own, OPERATOR) for own in self._own), *self._keys.items()]:
            if hmac.compare_digest(digest, known):
                found = key
        return found if scheme.lower() == b"bearer" else None

    def _refresh(self) -> None:
        now = self.clock()
        if now - self._read >= FRESH_SECONDS:
            self._keys, self._read = self.load(), now
            # Once there was a key the server stays closed: revoking the last one must not open it.
            self.is_open = self.is_open and not self.has_keys
