"""Paths that several packages of the server treat in the same way: vLLM's routes and the health probes."""

PROBES = frozenset({"/livez", "/readyz", "/health"})
GENERATING = ("/v1/chat/completions", "/v1/completions", "/v1/responses")
"""vLLM's routes that generate text. Their composition must be resident."""
NAMING = ("/tokenize", "/detokenize")
"""vLLM's routes that only use the name of a composition. Nothing is made resident."""
