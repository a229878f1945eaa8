"""Versions, aliases, saved compositions and cached merges in one data directory.

A content-addressed store has the files, and a database has the rows. Nothing here uses an engine.
"""
