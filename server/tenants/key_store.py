"""Stores the API keys in the registry's database, with the digests of their secrets and not the secrets.

Several processes may write at the same time. A running server sees changes by `lora-compose keys` within a
second.
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
    """One key in the database."""

    __tablename__ = "api_keys"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    digest: Mapped[str] = mapped_column(unique=True)
    role: Mapped[str]
    adapters: Mapped[list[str]]
    quotas: Mapped[dict[str, Any]]
    created_at: Mapped[float]


class KeysRequiredRow(Table):
    """A single row, made with the first key: requests need a key, also after the last key is revoked."""

    __tablename__ = "keys_required"
    since: Mapped[float] = mapped_column(primary_key=True)


class KeyStore:
    """The keys of a data directory. Close it, or use it as a context manager."""

    def __init__(self, data_dir: Path) -> None:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._database = Database(sqlite_url(data_dir))
        self._database.migrate()

    def close(self) -> None:
        """Close the database connections."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def create(self, key: Key) -> tuple[Key, str]:
        """Store a key. Returns it with its id, and its secret. Raises Conflict("name_taken")."""
        secret = PREFIX + secrets.token_urlsafe(32)
        created = replace(key, id=f"key-{secrets.token_hex(8)}", created_at=time.time())
        with self._database.writing() as session:
            if session.scalar(select(KeyRow).where(KeyRow.name == key.name)) is not None:
                raise Conflict(
                    Code.NAME_TAKEN, f"The key {key.name!r} already exists. Rotate or revoke it.", "name"
                )
            if session.scalars(select(KeysRequiredRow)).first() is None:
                session.add(KeysRequiredRow(since=created.created_at))
            session.add(
                KeyRow(
                    id=created.id,
                    name=created.name,
                    digest=digest_of(secret.encode()),
                    role=created.role,
                    adapters=list(created.adapters),
                    quotas=asdict(created.quotas),
                    created_at=created.created_at,
                )
            )
        return created, secret

    def rotate(self, name: str) -> tuple[Key, str]:
        """Replace a key's secret. Returns the key and the new secret. Raises NotFound("key_not_found")."""
        secret = PREFIX + secrets.token_urlsafe(32)
        with self._database.writing() as session:
            row = _row(session, name)
            row.digest = digest_of(secret.encode())
            return _key(row), secret

    def revoke(self, name: str) -> Key:
        """Delete the key and return it. Raises NotFound("key_not_found")."""
        with self._database.writing() as session:
            row = _row(session, name)
            session.delete(row)
            return _key(row)

    def are_required(self) -> bool:
        """Whether requests need a key: true since the first key was created, until `open`."""
        with self._database.reading() as session:
            return session.scalars(select(KeysRequiredRow)).first() is not None

    def open(self) -> bool:
        """Let a server on loopback addresses accept requests without a key. False if it does so already.

        Raises Conflict("keys_exist") if there are keys."""
        with self._database.writing() as session:
            name = session.scalars(select(KeyRow.name).order_by(KeyRow.name)).first()
            if name is not None:
                raise Conflict(
                    CommandCode.KEYS_EXIST,
                    f"There are keys, for example {name!r}. Revoke them first: lora-compose keys revoke "
                    f"{name}",
                    "name",
                )
            row = session.scalars(select(KeysRequiredRow)).first()
            if row is not None:
                session.delete(row)
            return row is not None

    def by_digest(self) -> Mapping[str, Key]:
        """All keys by the digests of their secrets, in the order of their names."""
        with self._database.reading() as session:
            return {row.digest: _key(row) for row in session.scalars(select(KeyRow).order_by(KeyRow.name))}


def _row(session: Session, name: str) -> KeyRow:
    row = session.scalar(select(KeyRow).where(KeyRow.name == name))
    if row is None:
        raise NotFound(
            CommandCode.KEY_NOT_FOUND,
            f"The key {name!r:.80} does not exist. `lora-compose keys list` shows all keys.",
            "name",
        )
    return row


def _key(row: KeyRow) -> Key:
    quotas = Quotas(**row.quotas)
    return Key(row.id, row.name, row.role, tuple(row.adapters), quotas, row.created_at)  # type: ignore[arg-type]
