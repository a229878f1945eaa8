"""The tables of release 0.1.0.

A database made by 0.1.0 has these tables and no revision, so tables that exist are not changed.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    _create(
        "identity",
        sa.Column("id", sa.String(), primary_key=True),
    )
    _create(
        "adapters",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("last_number", sa.Integer(), nullable=False),
    )
    _create(
        "versions",
        sa.Column("name", sa.String(), sa.ForeignKey("adapters.name"), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("parameters", sa.BigInteger(), nullable=False),
        sa.Column("peak", sa.Double(), nullable=False),
        sa.Column("coverage", sa.JSON(), nullable=False),
        sa.Column("warnings", sa.JSON(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("lineage", sa.JSON(), nullable=False),
        *_content(),
    )
    _create(
        "aliases",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("alias", sa.String(), primary_key=True),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["name", "number"], ["versions.name", "versions.number"], ondelete="CASCADE"),
    )
    _create(
        "compositions",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
    )
    _create(
        "derived",
        sa.Column("key", sa.String(), primary_key=True),
        sa.Column("report", sa.JSON(), nullable=False),
        *_content(),
    )
    _create(
        "derived_members",
        sa.Column("key", sa.String(), sa.ForeignKey("derived.key", ondelete="CASCADE"), primary_key=True),
        sa.Column("digest", sa.String(), primary_key=True),
    )
    _create(
        "api_keys",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("name", sa.String(), nullable=False, unique=True),
        sa.Column("digest", sa.String(), nullable=False, unique=True),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("adapters", sa.JSON(), nullable=False),
        sa.Column("quotas", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
    )
    for table in ("versions", "derived", "derived_members"):
        op.create_index(f"ix_{table}_digest", table, ["digest"], if_not_exists=True)


def _create(name: str, *parts: sa.schema.SchemaItem) -> None:
    op.create_table(name, *parts, if_not_exists=True)


def _content() -> tuple[sa.Column[object], ...]:
    """The columns of a row that describes two files in the store."""
    return (
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("config_bytes", sa.BigInteger(), nullable=False),
        sa.Column("weights_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
    )
