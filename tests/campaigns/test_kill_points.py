import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.campaigns.system_calls import CHANGING


@pytest.mark.skipif(
    platform.system() != "Linux" or not CHANGING,
    reason="counts the system calls of Linux on x86-64 and ARM64",
)
def test_a_process_killed_while_it_changes_the_registry_leaves_the_state_before_or_after(
    tmp_path: Path,
) -> None:
    output = tmp_path / "found.json"
    # A process of its own: it forks, and pytest's may have threads.
    command = [sys.executable, "-m", "tests.campaigns.kill_points", "--count", "34", "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    tallies = json.loads(output.read_text())["operations"]
    assert sum(tally["before"] + tally["after"] for tally in tallies) == 34
    assert all(tally["between"] == tally["lost"] == 0 for tally in tallies)
