"""Paths that several parts of the server treat alike: vLLM's routes and the probes."""

PROBES = frozenset({"/livez", "/readyz", "/health"})
GENERATING = ("/v1/chat/completions", "/v1/completions", "/v1/responses")
"""Routes of vLLM that generate: a composition must be resident."""
NAMING = ("/tokenize", "/detokenize")
"""Routes of vLLM that only use the names of a composition."""
