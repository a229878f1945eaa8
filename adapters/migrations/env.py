"""Alembic runs this to apply the scripts: on the connection and in the transaction of `adapters.schema`."""

import logging

from alembic import context

# `adapters.schema` logs a migration, in one line.
logging.getLogger("alembic").setLevel(logging.WARNING)
context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
