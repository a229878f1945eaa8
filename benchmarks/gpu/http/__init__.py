"""The whole product over HTTP on a GPU: `python -m lora_compose.benchmarks.gpu.http demo big plain`.

What lives here: a server started as a user starts it, the testbed's demo asked before, while and after a
fusion, and `lora-compose bench serve` on an 8B shape. What does not: checks of the engine inside this process
(`../parts`).
"""
