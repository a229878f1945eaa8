"""Training of adapters: recipes, runs, records, sweeps, publishing, and the `train`, `data` and `eval` commands.

It uses TRL, PEFT and bitsandbytes. It does not import vLLM: it uses a server over HTTP, by `server.client`.
"""
