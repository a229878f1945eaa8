"""Tells a running benchmark's own requests from everybody else's.

A run gets a key of its own, which is good for as long as it runs: what comes with it is the benchmark, and
everything else that generates is the traffic it must not drown.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import Scope


class BenchmarkTraffic:
    """`real` counts the generating requests in flight that are no benchmark's."""

    def __init__(self) -> None:
        self.real = 0
        self._digest: bytes | None = None

    def open(self) -> str:
        """The key of a run that begins. The one before is good no more."""
        key = f"benchmark-{secrets.token_urlsafe(32)}"
        self._digest = hashlib.sha256(key.encode()).digest()
        return key

    def close(self) -> None:
        """The run is over, and so is its key."""
        self._digest = None

    def is_own(self, scope: Scope) -> bool:
        """Whether the request comes with the key of the run that goes on."""
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if self._digest is None or len(given) != 1:
            return False
        scheme, _, key = given[0].partition(b" ")
        is_key = hmac.compare_digest(hashlib.sha256(key).digest(), self._digest)
        return is_key and bool(scheme.lower() == b"bearer")

    @contextmanager
    def counted(self, scope: Scope) -> Iterator[None]:
        """Count a request for as long as it is answered."""
        count = 0 if self.is_own(scope) else 1
        self.real += count
        try:
            yield
        finally:
            self.real -= count
