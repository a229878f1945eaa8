"""With `--json`, a command prints one JSON document on stdout, and nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lora_compose.training.testbed.paths import ADAPTERS_DIR, BASE_DIR, DATA_DIR

ROLL, GENERAL = str(DATA_DIR / "roll.jsonl"), str(DATA_DIR / "general-held-out.jsonl")
OUT = "{out}"
MAIN = "from lora_compose.adapters.console import main; main()"
MEMBERS = [f"--adapter={name}={ADAPTERS_DIR / name}" for name in ("roll", "upper")]
COMMANDS = {
    "inspect": ["data", "inspect", ROLL],
    "curate": ["data", "curate", ROLL, OUT + ".jsonl"],
    "mix": ["data", "mix", OUT + ".jsonl", "--general", GENERAL, "--domain", ROLL, "--ratio", "1:1"],
    "compose": ["compose", "roll+upper", OUT, *MEMBERS],
    "plan": ["train", "plan", "--model", str(BASE_DIR)],
    "suite": ["train", "suite", OUT + ".jsonl", "--rows", "6"],
    "eval": ["eval", "--model", str(BASE_DIR), "--general", "testbed:general", "--limit", "4"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_stdout_of_a_process_has_only_json(tmp_path: Path, command: str) -> None:
    words = [word.replace(OUT, str(tmp_path / "out")) for word in COMMANDS[command]]
    program = [sys.executable, "-c", MAIN, *words, "--json"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    assert "Traceback" not in done.stderr
