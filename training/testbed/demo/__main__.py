"""Run `demo.py`: `python -m lora_compose.training.testbed.demo`."""

import typer

from lora_compose.training.testbed.demo.demo import main

if __name__ == "__main__":
    typer.run(main)
