"""A training on a local base opens no connection and resolves no name."""

import subprocess
import sys
from pathlib import Path

from tests.training.recipes import written

PROGRAM = """
import sys
from pathlib import Path

calls = []

def heard(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        calls.append((event, str(arguments[-1] if event == "socket.connect" else arguments[0])))

sys.addaudithook(heard)
from lora_compose.training.recipe import read_recipe
from lora_compose.training.run import train
from huggingface_hub import constants

assert constants.HF_HUB_DISABLE_TELEMETRY
train(read_recipe(sys.argv[2], Path(sys.argv[1])))
print("calls:", calls)
"""


def test_a_run_calls_no_one(tmp_path: Path) -> None:
    recipe = written(tmp_path, max_steps=1, domain_tasks=None)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(recipe), "sft"], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1:] == ["calls: []"], done.stderr[-2000:]
