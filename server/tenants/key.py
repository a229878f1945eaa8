"""An API key: its role, the adapters it may see, and its quotas.

Each key is a tenant with its own view of the adapters, its own quotas and its own part of the prefix cache.
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
PATTERN = re.compile(r"[A-Za-z0-9._/-]{0,128}\*?", re.ASCII)


@dataclass(frozen=True)
class Quotas:
    """The quotas of a key. None means unlimited."""

    requests_per_minute: int | None = None
    """Requests of any kind. A sixth of them may come at once."""
    tokens_per_minute: int | None = None
    """Prompt and answer tokens, charged when they are computed, so that one answer can exceed the quota."""
    in_flight: int | None = None
    """Answers in progress at the same time. A request for several answers counts as several."""
    builds_per_hour: int | None = None
    """Merges built, adapters registered, and adapters prepared for the engine that were not in memory."""
    adapters: int | None = None
    """Versions registered under the names this key may see."""
    adapter_bytes: int | None = None
    """Size of the files of these versions."""

    def __post_init__(self) -> None:
        for quota in fields(self):
            value = getattr(self, quota.name)
            if value is not None and value < 0:
                raise InvalidRequest(
                    CommandCode.INVALID_QUOTA, f"{quota.name} ({value}) must not be negative", quota.name
                )


@dataclass(frozen=True)
class Key:
    """An API key without its secret, which the server does not store."""

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
                CommandCode.INVALID_ROLE,
                f"{self.role!r} is not a role. The roles are {', '.join(ROLES)}.",
                "role",
            )
        for pattern in self.adapters:
            if not pattern or not PATTERN.fullmatch(pattern):
                raise InvalidRequest(
                    CommandCode.INVALID_PATTERN,
                    f"{pattern!r:.80} is neither the name of an adapter nor a prefix that ends in *.",
                    "adapters",
                )

    @property
    def is_operator(self) -> bool:
        """Whether the key administers the whole server, and not only some adapters."""
        return self.role == "admin" and self.adapters == EVERYTHING

    def sees(self, adapter: str) -> bool:
        """Whether the key may see an adapter of this name."""
        return any(
            adapter.startswith(pattern[:-1]) if pattern.endswith("*") else adapter == pattern
            for pattern in self.adapters
        )


OPERATOR: Final = Key("operator", "operator", "admin")
"""The key of every secret given by `--api-key`, and of all requests to a loopback server without keys."""
BENCHMARK: Final = Key("benchmark", "benchmark", "admin")
"""The key of a benchmark that the server runs on itself."""


def digest_of(secret: bytes) -> str:
    """The SHA-256 in hex. A slower hash is not needed, because a secret has 256 random bits."""
    return hashlib.sha256(secret).hexdigest()
