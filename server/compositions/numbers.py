"""Numbers of adapters for clients of llama.cpp: the field `lora` has numbers from `GET /lora-adapters`.

A number stands for one version, also after a restart and after a newer version of the name. A client that has
seen a number therefore gets the adapter that it has seen.
"""

import hashlib
from collections.abc import Iterable

from lora_compose.adapters.registry.store import Version

_BITS = 53
"""JavaScript and most JSON libraries read integers of up to 53 bits exactly."""


def number_of(version: Version) -> int:
    """The number of a version, 0 <= number < 2**53: the first bits of the sha256 of `name@version`."""
    digest = hashlib.sha256(version.id.encode()).digest()
    return int.from_bytes(digest[:8]) >> (64 - _BITS)


def by_number(versions: Iterable[Version]) -> dict[int, Version]:
    """The versions by number. If two have the same number, neither is found by it."""
    found: dict[int, Version] = {}
    twice = set()
    for version in versions:
        number = number_of(version)
        if number in found:
            twice.add(number)
        found[number] = version
    return {number: version for number, version in found.items() if number not in twice}
