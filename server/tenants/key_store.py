"""The keys, in the registry's database: digests of secrets, never the secrets.

Several processes may write here: `lora-compose keys` does while a server runs, which sees it within a second.
"""

import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import select
from sqlalchemy.orm import Mapped, Session, mapped_column

from lora_compose.adapters.errors import Code, CommandCode, Conflict, NotFound
from lora_compose.adapters.registry.database import Database, Table, sqlite_url
from lora_compose.server.tenants.key import Key, Quotas, digest_of

PREFIX = "lc-"


class KeyRow(Table):
    """One key."""

    __tablename__ = "api_keys"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    digest: Mapped[str] = mapped_column(unique=True)
    role: Mapped[str]
    adapters: Mapped[list[str]]
    quotas: Mapped[dict[str, Any]]
    created_at: Mapped[float]


class KeyStore:
    """Keys by name. Close it, or use it as a context."""

    def __init__(self, data_dir: Path) -> None:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._database = Database(sqlite_url(data_dir))
        self._database.migrate()

    def close(self) -> None:
        """Give the connections back."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def create(self, key: Key) -> tuple[Key, str]:
        """The key with its id, and its secret, told this once. Raises Conflict("name_taken")."""
        secret = PREFIX + secrets.token_urlsafe(32)
        made = replace(key, id=f"key-{secrets.token_hex(8)}", created_at=time.time())
        with self._database.writing() as session:
            if session.scalar(select(KeyRow).where(KeyRow.name == key.name)) is not None:
                raise Conflict(
                    Code.NAME_TAKEN, f"There is a key {key.name!r} already: rotate or revoke it.", "name"
                )
            session.add(
                KeyRow(
                    id=made.id,
                    name=made.name,
                    digest=digest_of(secret.encode()),
                    role=made.role,
                    adapters=list(made.adapters),
                    quotas=asdict(made.quotas),
                    created_at=made.created_at,
                )
            )
        return made, secret

    def rotate(self, name: str) -> tuple[Key, str]:
        """The same key with another secret; the one before is good no more. Raises NotFound."""
        secret = PREFIX + secrets.token_urlsafe(32)
        with self._database.writing() as session:
            row = _row(session, name)
            row.digest = digest_of(secret.encode())
            return _key(row), secret

    def revoke(self, name: str) -> Key:
        """Forget it. Raises NotFound("key_not_found")."""
        with self._database.writing() as session:
            row = _row(session, name)
            session.delete(row)
            return _key(row)

    def by_digest(self) -> Mapping[str, Key]:
        """All of them, by their secret's digest."""
        with self._database.reading() as session:
            return {row.digest: _key(row) for row in session.scalars(select(KeyRow).order_by(KeyRow.name))}


def _row(session: Session, name: str) -> KeyRow:
    row = session.scalar(select(KeyRow).where(KeyRow.name == name))
    if row is None:
        raise NotFound(
            CommandCode.KEY_NOT_FOUND, f"There is no key {name!r:.80}: see `lora-compose keys list`.", "name"
        )
    return row


def _key(row: KeyRow) -> Key:
    quotas = Quotas(**row.quotas)
    return Key(row.id, row.name, row.role, tuple(row.adapters), quotas, row.created_at)  # type: ignore[arg-type]
