"""Bases of versions, expiry, pins, the fused composition, the use of cached merges, and the rule for keys.

A version's fingerprint was a value in its lineage. A version without one gets the base "unknown". A registry
that has API keys requires them from now on, also after the last one is revoked.
"""

import json
import time

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

UNKNOWN = "unknown"


def upgrade() -> None:
    op.add_column("versions", sa.Column("ttl_seconds", sa.BigInteger()))
    op.add_column("versions", sa.Column("expires_at", sa.Double()))
    op.create_index("ix_versions_expires_at", "versions", ["expires_at"])
    op.add_column("derived", sa.Column("used_at", sa.Double()))
    op.create_table(
        "version_bases",
        *_version_columns(),
        sa.Column("fingerprint", sa.String(), primary_key=True),
        sa.Column("base_name", sa.String(), nullable=False),
        _version_key(),
    )
    op.create_index("ix_version_bases_fingerprint", "version_bases", ["fingerprint"])
    op.create_table(
        "served_base",
        sa.Column("fingerprint", sa.String(), primary_key=True),
        sa.Column("base_name", sa.String(), nullable=False),
    )
    op.create_table(
        "retired_versions",
        *_version_columns(),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("retired_at", sa.Double(), nullable=False),
    )
    op.create_table("pins", *_version_columns(), _version_key())
    op.create_table("fused", sa.Column("model", sa.String(), primary_key=True))
    op.create_table(
        "keys_required",
        sa.Column("since", sa.Double(), primary_key=True),
    )
    _fill()


def _fill() -> None:
    connection = op.get_bind()
    for name, number, text in connection.execute(sa.text("SELECT name, number, lineage FROM versions")):
        lineage = json.loads(text) if isinstance(text, str) else text
        connection.execute(
            sa.text("INSERT INTO version_bases VALUES (:name, :number, :fingerprint, :base_name)"),
            {
                "name": name,
                "number": number,
                "fingerprint": lineage.get("base_fingerprint") or UNKNOWN,
                "base_name": UNKNOWN,
            },
        )
    if connection.scalar(sa.text("SELECT count(*) FROM api_keys")):
        connection.execute(sa.text("INSERT INTO keys_required VALUES (:since)"), {"since": time.time()})


def _version_columns() -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True),
    )


def _version_key() -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["name", "number"], ["versions.name", "versions.number"], ondelete="CASCADE"
    )
