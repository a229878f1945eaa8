"""Alembic runs this file to apply the scripts, in the transaction of `registry/schema.py`."""

import logging

from alembic import context

# `registry/schema.py` logs a migration in one line.
logging.getLogger("alembic").setLevel(logging.WARNING)
context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
