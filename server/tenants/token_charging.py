"""The function that charges the tokens of the current request to a quota.

The engine's frontend counts the tokens (`engine/frontend/token_accounting.py`) and reads the function here.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Charge = Callable[[int], None]
_charge: ContextVar[Charge | None] = ContextVar("charge", default=None)


@contextmanager
def charging(charge: Charge | None) -> Iterator[None]:
    """Call `charge` with each number of tokens computed in this context, or in tasks started in it."""
    token = _charge.set(charge)
    try:
        yield
    finally:
        _charge.reset(token)


def current_charge() -> Charge | None:
    """The charge function of this context; None if tokens are not charged."""
    return _charge.get()
