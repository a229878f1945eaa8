"""Inside vLLM's workers: adapters are built in the background, held, stacked, and folded into the base."""
