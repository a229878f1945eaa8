"""Routes of other servers: requests of their clients are translated for vLLM, and its answers for them."""
