"""Paths that several packages treat in the same way: probes, vLLM's routes, those of other servers."""

PROBES = frozenset({"/livez", "/readyz", "/health"})
GENERATING = ("/v1/chat/completions", "/v1/completions", "/v1/responses")
"""vLLM's routes that generate text. Their composition must be resident."""
NAMING = ("/tokenize", "/detokenize")
"""vLLM's routes that only use the name of a composition. Nothing is made resident."""
TRANSLATED = ("/", "/generate", "/generate_stream", "/api/chat", "/api/generate")
"""Routes of other servers that generate: of TGI and LoRAX, and of Ollama."""
