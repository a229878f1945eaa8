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
        secret = _secret_of(scope)
        # All digests are compared, so that the time does not depend on which one matches.
        owner = None
        digest = digest_of(secret or b"")
        for known, key in [*((own, OPERATOR) for own in self._own), *self._keys.items()]:
            if hmac.compare_digest(digest, known):
                owner = key
        return None if secret is None else owner

    def _refresh(self) -> None:
        now = self.clock()
        if now - self._read >= REFRESH_SECONDS:
            self._keys, self._read = self.load(), now
            self.is_open = not self.has_keys and self.may_open()


def _secret_of(scope: Scope) -> bytes | None:
    """The secret in `Authorization: Bearer` or in `x-api-key`, the header of Anthropic's clients.

    None if the request has neither, or two different ones."""
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    secrets = [value for name, value in scope["headers"] if name == b"x-api-key"]
    if max(len(given), len(secrets)) > 1:
        return None
    for value in given:
        scheme, _, secret = value.partition(b" ")
        if scheme.lower() != b"bearer":
            return None
        secrets.append(secret)
    return secrets[0] if len(set(secrets)) == 1 else None
