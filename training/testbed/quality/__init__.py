"""How much of each member a composition keeps: `python -m lora_compose.training.testbed.quality`.

It measures all pairs and triples of the testbed's adapters offline, and writes docs/composition-quality.md.
"""
