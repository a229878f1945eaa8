"""Alembic runs this to apply the scripts: on the connection and in the transaction of `lora_compose.adapters.registry.schema`."""

import logging

from alembic import context

# `lora_compose.adapters.registry.schema` logs a migration, in one line.
logging.getLogger("alembic").setLevel(logging.WARNING)
context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
