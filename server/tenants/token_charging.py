"""Which quota pays for the tokens of the request that is being answered.

The engine's frontend counts the tokens (`engine/token_charge.py`) and reads the charge here.
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
    """The charge of this context; None where tokens are free."""
    return _charge.get()
