"""An API key: whose requests these are, what they may do, which adapters exist for them, and how much.

A key is a tenant: what it may see, its quotas and its part of the prefix cache are its own.
"""

import hashlib
import re
from dataclasses import dataclass, field, fields
from typing import Final, Literal, get_args

from lora_compose.adapters.errors import CommandCode, InvalidRequest
from lora_compose.adapters.names import check_name

Role = Literal["inference", "admin", "monitor"]
ROLES: Final = get_args(Role)
EVERYTHING: Final = ("*",)
PATTERN = re.compile(r"[A-Za-z0-9._-]{0,128}\*?", re.ASCII)


@dataclass(frozen=True)
class Quotas:
    """None: no bound."""

    requests_per_minute: int | None = None
    """Requests of any kind; a sixth of them may come at once."""
    tokens_per_minute: int | None = None
    """Prompt and answer. Charged as they are computed, so one answer may run into debt."""
    in_flight: int | None = None
    """Answers being made at a time: a request for several counts as several."""
    builds_per_hour: int | None = None
    """Merges built, adapters checked for registering, and prepared for the engine where they were not."""
    adapters: int | None = None
    """Versions registered under the names this key may see."""
    adapter_bytes: int | None = None
    """Of those versions' files."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None and value < 0:
                raise InvalidRequest(
                    CommandCode.INVALID_QUOTA, f"{each.name} ({value}) must not be negative", each.name
                )


@dataclass(frozen=True)
class Key:
    """What is known of a key; its secret is known to its holder only."""

    id: str
    name: str
    role: Role
    adapters: tuple[str, ...] = EVERYTHING
    """Names, and prefixes that end in `*`."""
    quotas: Quotas = field(default_factory=Quotas)
    created_at: float = 0.0

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.role not in ROLES:
            raise InvalidRequest(
                CommandCode.INVALID_ROLE, f"{self.role!r} is not a role: {', '.join(ROLES)}", "role"
            )
        for pattern in self.adapters:
            if not pattern or not PATTERN.fullmatch(pattern):
                raise InvalidRequest(
                    CommandCode.INVALID_PATTERN,
                    f"{pattern!r:.80} is neither an adapter's name nor a prefix that ends in *",
                    "adapters",
                )

    @property
    def is_operator(self) -> bool:
        """An admin of the whole server, not of some adapters."""
        return self.role == "admin" and self.adapters == EVERYTHING

    def sees(self, adapter: str) -> bool:
        """Whether an adapter of that name may exist for this key."""
        return any(
            adapter.startswith(pattern[:-1]) if pattern.endswith("*") else adapter == pattern
            for pattern in self.adapters
        )


OPERATOR: Final = Key("operator", "operator", "admin")
"""Whoever holds a key given by `--api-key`; everybody, on a loopback server without keys."""
BENCHMARK: Final = Key("benchmark", "benchmark", "admin")
"""A benchmark this server runs on itself."""


def digest_of(secret: bytes) -> str:
    """sha256, hex. Secrets are 256 random bits: nothing slower is needed to keep them from being guessed."""
    return hashlib.sha256(secret).hexdigest()
