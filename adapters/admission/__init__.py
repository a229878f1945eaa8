"""Checks whether the server may serve a directory: its files become an `Admission` or a refusal.

Reads files only. What is done with an admitted adapter belongs to `adapters.registry`.
"""
