"""The demo of the server: `python -m lora_compose.training.testbed.demo`."""
