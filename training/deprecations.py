"""Settings that a later version of TRL removes, in TRL's own words, as lines for the user."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collected(found: list[str]) -> Iterator[None]:
    """Append to `found` what libraries say will be removed. Other warnings are shown as usual."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FutureWarning)
        yield
    for warning in caught:
        text = str(warning.message)
        if issubclass(warning.category, FutureWarning) and "removed" in text:
            if text not in found:
                found.append(text)
            continue
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
