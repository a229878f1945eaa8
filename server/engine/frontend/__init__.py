"""In the API process: starts vLLM, and `Engine`, which is all that the server asks of it."""
