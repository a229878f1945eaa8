"""Training of adapters: recipes, runs, records, sweeps, publishing, and the commands `train`, `data`, `eval`.

It uses TRL, PEFT and bitsandbytes. It does not import vLLM: it uses a server over HTTP, by `server.client`.

Each of TRL's trainers sends the versions of packages to the hub when it is made. This is off here, before
huggingface_hub reads the variable; a user who wants it sets the variable to 0.
"""

import os

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
