"""The endpoint of the generating routes, which forwards to vLLM's app, and the accounting of its requests."""
