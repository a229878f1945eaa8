"""Versions, aliases, saved compositions and cached merges on one data directory.

Files lie in a content-addressed store, rows in a database. Nothing here knows an engine.
"""
