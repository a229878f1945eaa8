"""Runs schemathesis with our OpenAPI document on a real server: no 5xx, and every reply must match the
document.

python -m tests.campaigns.openapi_fuzz --st .venv-fuzz/bin/st --seconds 600

schemathesis is not a dependency: `python3.11 -m venv .venv-fuzz && .venv-fuzz/bin/pip install
schemathesis==4.32.5` (MIT) installs it separately. vLLM reads its own fields leniently (`false` counts as a
number, unknown fields are ignored), so only our own routes must reject what the schema does not allow.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
from rich.console import Console

from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.running_server import RunningServer

HERE = Path(__file__).resolve().parent
VLLM_S = r"^/(v1/(chat/completions|completions|responses)|tokenize|detokenize)$"
CONFIG = """
[checks]
positive_data_acceptance.enabled = false
[generation]
database = "none"
"""


def main() -> int:
    """Run all checks. Returns 0 if nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--st", default="st", help="command of schemathesis")
    parser.add_argument(
        "--seconds", type=int, default=120, help="seconds for each of the two groups of routes"
    )
    parser.add_argument("--examples", type=int, default=200, help="largest number of cases for an operation")
    parser.add_argument("--seed", type=int, default=0, help="seed of the cases")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        server = RunningServer.start(home / "data", home / "log", ["--adapter-root", str(ADAPTERS_DIR)])
        try:
            server.wait_until_ready()
            names = register(server.url)
            ended = [
                fuzz(args, server.url, names, home, ["--exclude-path-regex", VLLM_S]),
                fuzz(args, server.url, names, home, ["--include-path-regex", VLLM_S, *LENIENT]),
            ]
            return max(*ended, aftermath(server))
        finally:
            server.stop()


LENIENT = ["--exclude-checks", "negative_data_rejection"]


def register(url: str) -> list[str]:
    """Register the testbed's adapters, and return their names."""
    names = sorted(directory.name for directory in ADAPTERS_DIR.iterdir())
    for name in names:
        body = {"name": name, "path": str(ADAPTERS_DIR / name)}
        httpx.post(f"{url}/v1/adapters", json=body, timeout=30).raise_for_status()
    return names


def fuzz(args: argparse.Namespace, url: str, names: list[str], home: Path, which: list[str]) -> int:
    """Run schemathesis, and return its exit code. Its findings are printed to stdout."""
    (home / "schemathesis.toml").write_text(CONFIG)
    own = {
        "FUZZ_NAMES": ",".join(names),
        "FUZZ_ROOT": str(ADAPTERS_DIR),
        "FUZZ_DATA_DIR": str(home / "data"),
        "SCHEMATHESIS_HOOKS": "schemathesis_hooks",
        "PYTHONPATH": str(HERE),
    }
    limits = ["--max-time", str(args.seconds), "-n", str(args.examples), "--seed", str(args.seed)]
    phases = ["--phases", "examples,coverage,fuzzing", "--continue-on-failure", "--request-timeout", "60"]
    command = [args.st, "run", f"{url}/openapi.json", "--no-color", *phases, *limits, *which]
    return subprocess.run(command, cwd=home, env={**os.environ, **own}, check=False).returncode


def aftermath(server: RunningServer) -> int:
    """1 if the server is not ready afterwards, or if its log has a traceback."""
    ready = httpx.get(f"{server.url}/readyz", timeout=10).status_code == 200
    tracebacks = server.log.read_text(errors="replace").count("Traceback (most recent call last)")
    Console().print(f"ready afterwards: {ready}; tracebacks in the log: {tracebacks}")
    return 0 if ready and not tracebacks else 1


if __name__ == "__main__":
    sys.exit(main())
