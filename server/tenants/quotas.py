"""How much of its quotas each key has used since the server started.

A rate is a token bucket that fills over time. Its level can be negative (a debt), because the cost of an
answer is only known afterwards.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lora_compose.adapters.errors import Code, QuotaExceeded
from lora_compose.server.tenants.key import Key, Quotas


@dataclass
class TokenBucket:
    """A bucket of `amount` tokens. It starts full and gains `amount` every `seconds` of a monotonic clock."""

    amount: float
    seconds: float
    clock: Callable[[], float] = time.monotonic
    _level: float = field(init=False)
    _since: float = field(init=False)

    def __post_init__(self) -> None:
        self._level, self._since = self.amount, self.clock()

    def wait(self, cost: float) -> float:
        """Seconds until `cost` can be taken without a debt; 0 means now; infinite if it exceeds `amount`."""
        missing = cost - self._filled()
        if missing <= 0:
            return 0.0
        return missing * self.seconds / self.amount if cost <= self.amount else float("inf")

    def take(self, cost: float) -> None:
        """Take `cost`, even if that leaves a debt."""
        self._level = self._filled() - cost

    def _filled(self) -> float:
        now = self.clock()
        gained = (now - self._since) * self.amount / self.seconds
        self._level, self._since = min(self.amount, self._level + gained), now
        return self._level


MINUTE, HOUR = 60.0, 3600.0
IN_FLIGHT_RETRY = 1.0
BURST_SHARE = 1 / 6
"""Burst size as a share of the quota per minute or hour. Allowing the whole quota at once would overload the
server."""
MIN_BURST = 10.0


@dataclass
class Account:
    """The use of one key's quotas."""

    quotas: Quotas
    in_flight: int = 0
    buckets: dict[str, TokenBucket] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rates = (("requests_per_minute", MINUTE), ("tokens_per_minute", MINUTE), ("builds_per_hour", HOUR))
        for name, seconds in rates:
            bound = getattr(self.quotas, name)
            if bound:
                burst = max(bound * BURST_SHARE, min(float(bound), MIN_BURST))
                self.buckets[name] = TokenBucket(burst, seconds * burst / bound)

    def require(self, name: str, cost: float) -> None:
        """Raises QuotaExceeded, with the seconds to wait, unless `cost` is available."""
        bucket = self.buckets.get(name)
        if getattr(self.quotas, name) == 0:
            raise exceeded(name, 0, None)
        wait = 0.0 if bucket is None else bucket.wait(cost)
        if wait:
            raise exceeded(name, getattr(self.quotas, name), wait)

    def take(self, name: str, cost: float) -> None:
        """Take `cost`, even if that leaves a debt."""
        if name in self.buckets:
            self.buckets[name].take(cost)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Count a request while it is answered. Raises QuotaExceeded."""
        limit = self.quotas.in_flight
        if limit is not None and self.in_flight >= limit:
            raise exceeded("in_flight", limit, IN_FLIGHT_RETRY)
        self.require("requests_per_minute", 1)
        self.take("requests_per_minute", 1)
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    @contextmanager
    def sequences(self, count: int) -> Iterator[None]:
        """Count a request for `count` answers as `count` requests in flight while it is answered.

        Raises QuotaExceeded; without seconds to wait if `count` is above the quota itself.
        """
        limit, more = self.quotas.in_flight, count - 1
        if limit is not None and self.in_flight + more > limit:
            raise exceeded("in_flight", limit, IN_FLIGHT_RETRY if count <= limit else None)
        self.in_flight += more
        try:
            yield
        finally:
            self.in_flight -= more


@dataclass
class QuotaLedger:
    """The accounts of all keys. A key whose quotas changed gets a new account."""

    _accounts: dict[str, Account] = field(default_factory=dict)

    def account(self, key: Key) -> Account:
        """The account of the key."""
        account = self._accounts.get(key.id)
        if account is None or account.quotas != key.quotas:
            account = self._accounts[key.id] = Account(key.quotas)
        return account


def exceeded(name: str, bound: int, wait: float | None) -> QuotaExceeded:
    """The error for a used-up quota. `wait` is in seconds; None or infinite if waiting does not help."""
    is_permanent = wait is None or wait == float("inf")
    hint = "" if is_permanent else f" Try again in {wait:.0f} s."
    return QuotaExceeded(
        Code.QUOTA_EXCEEDED,
        f"This key's quota of {bound} {name.replace('_', ' ')} is used up.{hint}",
        name,
        None if is_permanent else wait,
    )
