"""Alembic's scripts for the registry's database, one a schema change, in `versions/`.

To change the schema: change the tables, add a script with the next revision, and set `SCHEMA.head` in
`adapters/schema.py`. A released script never changes. There is no `downgrade`: a backup is the way back.
SQLite enforces foreign keys during a migration, so do not rebuild a table to which others refer.
"""
