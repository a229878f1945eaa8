"""The caller of a request: which adapters it may see, and the quotas it has left."""

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
    """The key of a request and the account of its quotas."""

    key: Key
    account: Account

    def sees(self, name: str) -> bool:
        """Whether the caller may see an adapter of this name."""
        return self.key.sees(name)

    def sees_all(self, composition: Composition) -> bool:
        """Whether the caller may see every member of the composition."""
        return all(self.sees(member.name) for member in composition.members)

    def saved(self, look_up: Saved) -> Saved:
        """`look_up` without the saved compositions that have a member the caller may not see."""

        def visible(name: str) -> Composition | None:
            composition = look_up(name)
            return composition if composition is not None and self.sees_all(composition) else None

        return visible

    def require(self, name: str, not_found: Callable[[str], NotFound]) -> None:
        """Raise `not_found(name)`, as for an adapter that does not exist, if the caller may not see it."""
        if not self.sees(name):
            raise not_found(name)

    def require_name(self, name: str) -> None:
        """Raises Forbidden("name_not_allowed"), whether or not an adapter of this name exists."""
        if not self.sees(name):
            allowed = ", ".join(self.key.adapters) or "none"
            raise Forbidden(Code.NAME_NOT_ALLOWED, f"This key may use only these names: {allowed}.", "name")

    def require_operator(self, action: str) -> None:
        """Raises Forbidden("permission_denied") unless the key administers the whole server."""
        if not self.key.is_operator:
            raise Forbidden(
                Code.PERMISSION_DENIED, f"Only a key that administers the whole server may {action}."
            )

    @property
    def has_storage_quota(self) -> bool:
        """Whether the number or the size of their adapters is limited."""
        return self.key.quotas.adapters is not None or self.key.quotas.adapter_bytes is not None

    def require_storage(self, registry: Registry, staged: Path) -> None:
        """Raises QuotaExceeded if one more version, with these files, would exceed a quota."""
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
        """Charge `count` builds, or raise QuotaExceeded and charge nothing."""
        self.account.require("builds_per_hour", count)
        self.account.take("builds_per_hour", count)

    def charge_tokens(self, count: int) -> None:
        """Charge tokens that were computed."""
        self.account.take("tokens_per_minute", count)

    @property
    def pays_tokens(self) -> bool:
        """Whether the key has a token quota."""
        return self.key.quotas.tokens_per_minute is not None

    def salted(self, salt: object) -> dict[str, str]:
        """The field `cache_salt` for vLLM, so that response times do not reveal the prompts of other keys.

        `salt` is the request's own salt. Empty for an operator, and for a salt that vLLM refuses.
        """
        if self.key in (OPERATOR, BENCHMARK) or not (salt is None or (isinstance(salt, str) and salt)):
            return {}
        return {"cache_salt": hashlib.sha256(f"{self.key.id}\0{salt or ''}".encode()).hexdigest()}
