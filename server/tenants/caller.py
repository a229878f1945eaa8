"""Who asks, while a request is answered: which adapters exist for them, and what they still may use."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lora_compose.adapters.composition.composition import Composition
from lora_compose.adapters.errors import Code, Forbidden, NotFound
from lora_compose.adapters.registry.registry import Registry
from lora_compose.adapters.registry.store import content_of
from lora_compose.server.tenants.key import BENCHMARK, OPERATOR, Key
from lora_compose.server.tenants.quotas import Account, exceeded

Saved = Callable[[str], Composition | None]


@dataclass(frozen=True)
class Caller:
    """A key and its account."""

    key: Key
    account: Account

    def sees(self, name: str) -> bool:
        """Whether that adapter may exist for them."""
        return self.key.sees(name)

    def sees_all(self, composition: Composition) -> bool:
        """Whether each of its members may."""
        return all(self.sees(member.name) for member in composition.members)

    def saved(self, look_up: Saved) -> Saved:
        """`look_up`, without the saved compositions that have members they do not see."""

        def visible(name: str) -> Composition | None:
            found = look_up(name)
            return found if found is not None and self.sees_all(found) else None

        return visible

    def require(self, name: str, not_found: Callable[[str], NotFound]) -> None:
        """Raises what an adapter that is not registered would raise, for one they do not see."""
        if not self.sees(name):
            raise not_found(name)

    def require_name(self, name: str) -> None:
        """Raises Forbidden("name_not_allowed"), the same whether or not such an adapter exists."""
        if not self.sees(name):
            allowed = ", ".join(self.key.adapters) or "none"
            raise Forbidden(Code.NAME_NOT_ALLOWED, f"This key may use these names only: {allowed}.", "name")

    def require_operator(self, what: str) -> None:
        """Raises Forbidden("permission_denied") for all but those who run the whole server."""
        if not self.key.is_operator:
            raise Forbidden(Code.PERMISSION_DENIED, f"Only a key for the whole server may {what}.")

    @property
    def is_short_of_room(self) -> bool:
        """Whether what they register is bounded."""
        return self.key.quotas.adapters is not None or self.key.quotas.adapter_bytes is not None

    def require_room(self, registry: Registry, staged: Path) -> None:
        """Raises QuotaExceeded where one more version, of these bytes, is more than they may have."""
        quotas = self.key.quotas
        own = [v for name in registry.names() if self.sees(name) for v in registry.versions(name)]
        content = content_of(staged)
        if any(version.digest == content.digest for version in own):
            return
        if quotas.adapters is not None and len(own) + 1 > quotas.adapters:
            raise exceeded("adapters", quotas.adapters, None)
        total = sum(content.sizes.values()) + sum(version.bytes for version in own)
        if quotas.adapter_bytes is not None and total > quotas.adapter_bytes:
            raise exceeded("adapter_bytes", quotas.adapter_bytes, None)

    def build(self, count: int = 1) -> None:
        """Charge that many builds. Raises QuotaExceeded, and then nothing is charged."""
        self.account.demand("builds_per_hour", count)
        self.account.take("builds_per_hour", count)

    def charge_tokens(self, count: int) -> None:
        """They were computed."""
        self.account.take("tokens_per_minute", count)

    @property
    def pays_tokens(self) -> bool:
        """Whether they have to be counted."""
        return self.key.quotas.tokens_per_minute is not None

    def salted(self, given: object) -> dict[str, str]:
        """The prefix cache's salt, as a field: nobody can find out, by time, what other keys have asked.

        `given` is the request's own salt. Nothing for an operator, nor where vLLM refuses what was given."""
        if self.key in (OPERATOR, BENCHMARK) or not (given is None or (isinstance(given, str) and given)):
            return {}
        return {"cache_salt": hashlib.sha256(f"{self.key.id}\0{given or ''}".encode()).hexdigest()}
