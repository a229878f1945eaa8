"""A stand-in for `python -m lora_compose.benchmarks.serving`: same options; the plan's seed selects what it
does."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

FAILS, HANGS, DEFIES, FAILS_WITH_RESULT = 1, 2, 3, 4
COMMAND = (sys.executable, __file__)


def option(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


def say(done: int) -> None:
    sys.stdout.write("not JSON\n" + "x" * 200_000 + "\n")
    sys.stdout.write(json.dumps({"progress": {"done": done, "total": 2, "what": "single"}}) + "\n")
    sys.stdout.flush()


def main() -> None:
    seed, output = int(option("--seed")), Path(option("--output"))
    say(1)
    if seed in (HANGS, DEFIES):
        if seed == DEFIES:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        own = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        output.with_name("pids").write_text(f"{os.getpid()} {own.pid}")
        sys.stdout.write(json.dumps({"progress": {"done": 0, "total": 0, "what": f"{own.pid}"}}) + "\n")
        sys.stdout.flush()
        time.sleep(600)
    if seed != FAILS:
        found = {"argv": sys.argv[1:], "key": os.environ["LORA_COMPOSE_API_KEY"], "cwd": str(Path.cwd())}
        output.write_text(json.dumps(found))
        Path(option("--html")).write_text("<p>fast</p>")
        say(2)
    if seed in (FAILS, FAILS_WITH_RESULT):
        sys.exit(f"error: {output} cannot be written, see http://127.0.0.1:8000/livez")


if __name__ == "__main__":
    main()
