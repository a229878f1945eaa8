"""What every key has used of its quotas, since the server started.

A rate, as a bucket that fills over time. It can go into debt: what an answer costs is known afterwards.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lora_compose.adapters.errors import Code, QuotaExceeded
from lora_compose.server.tenants.key import Key, Quotas


@dataclass
class TokenBucket:
    """Holds `amount`, full at first, and fills that much every `seconds` (a monotonic clock's)."""

    amount: float
    seconds: float
    clock: Callable[[], float] = time.monotonic
    _level: float = field(init=False)
    _since: float = field(init=False)

    def __post_init__(self) -> None:
        self._level, self._since = self.amount, self.clock()

    def wait(self, cost: float) -> float:
        """Seconds until `cost` could be taken without debt; 0 now; infinite if it never fits."""
        missing = cost - self._filled()
        if missing <= 0:
            return 0.0
        return missing * self.seconds / self.amount if cost <= self.amount else float("inf")

    def take(self, cost: float) -> None:
        """Take it, into debt if need be."""
        self._level = self._filled() - cost

    def _filled(self) -> float:
        now = self.clock()
        gained = (now - self._since) * self.amount / self.seconds
        self._level, self._since = min(self.amount, self._level + gained), now
        return self._level


MINUTE, HOUR = 60.0, 3600.0
IN_FLIGHT_RETRY = 1.0
AT_ONCE = 1 / 6
"""The share of a quota that may come at once; the rest comes evenly. A whole minute's would be a storm."""
LEAST_AT_ONCE = 10.0


@dataclass
class Account:
    """Of one key, under one set of quotas."""

    quotas: Quotas
    in_flight: int = 0
    buckets: dict[str, TokenBucket] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rates = (("requests_per_minute", MINUTE), ("tokens_per_minute", MINUTE), ("builds_per_hour", HOUR))
        for name, seconds in rates:
            bound = getattr(self.quotas, name)
            if bound:
                at_once = max(bound * AT_ONCE, min(float(bound), LEAST_AT_ONCE))
                self.buckets[name] = TokenBucket(at_once, seconds * at_once / bound)

    def demand(self, name: str, cost: float) -> None:
        """Raises QuotaExceeded, saying when it could be had, unless there is `cost` of it."""
        bucket = self.buckets.get(name)
        if getattr(self.quotas, name) == 0:
            raise exceeded(name, 0, None)
        wait = 0.0 if bucket is None else bucket.wait(cost)
        if wait:
            raise exceeded(name, getattr(self.quotas, name), wait)

    def take(self, name: str, cost: float) -> None:
        """Into debt if need be."""
        if name in self.buckets:
            self.buckets[name].take(cost)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """For as long as a request is answered. Raises QuotaExceeded."""
        most = self.quotas.in_flight
        if most is not None and self.in_flight >= most:
            raise exceeded("in_flight", most, IN_FLIGHT_RETRY)
        self.demand("requests_per_minute", 1)
        self.take("requests_per_minute", 1)
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    @contextmanager
    def sequences(self, count: int) -> Iterator[None]:
        """A request that is being answered asks for so many answers: it counts as many.

        Raises QuotaExceeded, for good where they are more than may ever be at a time."""
        most, more = self.quotas.in_flight, count - 1
        if most is not None and self.in_flight + more > most:
            raise exceeded("in_flight", most, IN_FLIGHT_RETRY if count <= most else None)
        self.in_flight += more
        try:
            yield
        finally:
            self.in_flight -= more


@dataclass
class QuotaLedger:
    """Accounts by key. One whose quotas were changed begins anew."""

    _accounts: dict[str, Account] = field(default_factory=dict)

    def account(self, key: Key) -> Account:
        """The key's own."""
        found = self._accounts.get(key.id)
        if found is None or found.quotas != key.quotas:
            found = self._accounts[key.id] = Account(key.quotas)
        return found


def exceeded(name: str, bound: int, wait: float | None) -> QuotaExceeded:
    """`wait` in seconds; None or infinite where waiting does not help."""
    lasting = wait is None or wait == float("inf")
    hint = "" if lasting else f" Try again in {wait:.0f} s."
    return QuotaExceeded(
        Code.QUOTA_EXCEEDED,
        f"This key's quota of {bound} {name.replace('_', ' ')} is used up.{hint}",
        name,
        None if lasting else wait,
    )
