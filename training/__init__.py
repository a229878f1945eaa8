"""Training of adapters: recipes, runs, records, sweeps, publishing, and the commands `train`, `data`, `eval`.

It uses TRL, PEFT and bitsandbytes. It does not import vLLM: it uses a server over HTTP, by `server.client`.
"""
