"""Calls a function again and again in another thread, for tests of what changes while it is read."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeated(step: Callable[[], None]) -> Iterator[None]:
    """Another thread calls `step` again and again while the context is open."""
    done = threading.Event()

    def repeat() -> None:
        while not done.is_set():
            step()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
