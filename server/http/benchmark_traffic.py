"""Distinguishes the requests of a running benchmark from user traffic.

Each run gets a temporary key. Requests with that key belong to the benchmark; all other generating requests
are user traffic, for which the benchmark yields.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import Scope


class BenchmarkTraffic:
    """The key of the running benchmark. `real` is the number of generating user requests in flight."""

    def __init__(self) -> None:
        self.real = 0
        self._digest: bytes | None = None

    def open(self) -> str:
        """Create the key of a new run. The key of the previous run becomes invalid."""
        key = f"benchmark-{secrets.token_urlsafe(32)}"
        self._digest = hashlib.sha256(key.encode()).digest()
        return key

    def close(self) -> None:
        """End the run. Its key becomes invalid."""
        self._digest = None

    def is_own(self, scope: Scope) -> bool:
        """Whether the request has the key of the current run."""
        values = [value for name, value in scope["headers"] if name == b"authorization"]
        if self._digest is None or len(values) != 1:
            return False
        scheme, _, key = values[0].partition(b" ")
        is_key = hmac.compare_digest(hashlib.sha256(key).digest(), self._digest)
        return is_key and bool(scheme.lower() == b"bearer")

    @contextmanager
    def counted(self, scope: Scope) -> Iterator[None]:
        """Count a request in `real` while it is answered, unless it belongs to the benchmark."""
        count = 0 if self.is_own(scope) else 1
        self.real += count
        try:
            yield
        finally:
            self.real -= count
