"""Reads a request's composition, resolves it to immutable versions, and finds or builds their directories."""
