"""Run `quality.py`: `python -m lora_compose.training.testbed.quality`."""

import typer

from lora_compose.training.testbed.quality.quality import main

if __name__ == "__main__":
    typer.run(main)
