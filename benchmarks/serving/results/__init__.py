"""A result as types, and what follows from it: metrics, summary, comparison, advice. Pure."""
