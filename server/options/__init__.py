"""The command line of `serve`: our options, and what becomes of every option of vLLM."""
