"""What other packages use of the server: HTTP clients, the server process and client commands.

It imports no vLLM, torch or Starlette.
"""
