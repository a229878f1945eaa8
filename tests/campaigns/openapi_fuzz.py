"""schemathesis over our OpenAPI document and a real server: no 5xx, and every reply as the document says.

    python -m tests.campaigns.openapi_fuzz --st .venv-fuzz/bin/st --seconds 600

schemathesis is no dependency of ours: `python3.11 -m venv .venv-fuzz && .venv-fuzz/bin/pip install
schemathesis==4.32.5` (MIT) puts it beside. vLLM reads its own fields leniently (`false` is a number to it,
unknown fields are ignored): that what the schema does not allow is rejected is asked of our routes only.
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
    """0 where nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--st", default="st", help="schemathesis' command")
    parser.add_argument("--seconds", type=int, default=120, help="for each of the two halves of the surface")
    parser.add_argument("--examples", type=int, default=200, help="cases of an operation, at most")
    parser.add_argument("--seed", type=int, default=0)
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
    """The testbed's adapters, by name."""
    names = sorted(directory.name for directory in ADAPTERS_DIR.iterdir())
    for name in names:
        body = {"name": name, "path": str(ADAPTERS_DIR / name)}
        httpx.post(f"{url}/v1/adapters", json=body, timeout=30).raise_for_status()
    return names


def fuzz(args: argparse.Namespace, url: str, names: list[str], home: Path, which: list[str]) -> int:
    """schemathesis' exit code; what it finds goes to our stdout."""
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
    """1 where the server is not as alive as before, or its log holds a traceback."""
    ready = httpx.get(f"{server.url}/readyz", timeout=10).status_code == 200
    tracebacks = server.log.read_text(errors="replace").count("Traceback (most recent call last)")
    Console().print(f"ready afterwards: {ready}; tracebacks in the log: {tracebacks}")
    return 0 if ready and not tracebacks else 1


if __name__ == "__main__":
    sys.exit(main())
