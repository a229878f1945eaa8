"""The part of the engine in the API process: starts vLLM, and provides `Engine` to the server."""
