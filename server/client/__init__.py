"""The face that training, benchmarks and the commands use: HTTP client, server process, client commands.

No vLLM, no torch, no Starlette in it.
"""
