"""Checks whether the server may serve a directory: its files become an `Admission` or a refusal.

It only reads files. `adapters.registry` stores an adapter that was admitted.
"""
