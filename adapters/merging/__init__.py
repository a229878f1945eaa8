"""Merges several adapters into one and reports the error: pure functions on tensors, a table of methods."""
