"""The demo of the server: `make demo`, or `python -m lora_compose.training.testbed.demo`."""
