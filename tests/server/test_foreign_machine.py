"""One server where much is unusual: installed from the wheel, and run by a user without a name and a home.

The root file system is read-only, without a directory for temporary files. Only the data directory can be
written to. The server listens on IPv6, and every path has spaces and letters outside ASCII.
"""

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from lora_compose.server.client.process import ServerProcess, free_port
from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.installed_wheel import build_wheel, install

USER = "12345"
READ_ONLY = """
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
mount -o remount,bind,ro /
shift
cd /
exec unshare --user --map-user={user} env -u HOME -u USER -u LOGNAME -u TMPDIR "$@"
""".replace("{user}", USER)
"""The first argument is the directory that stays writable, the others are the command."""


def may_unshare() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(not may_unshare(), reason="no namespaces for this user")


@dataclass(frozen=True)
class ForeignServer:
    process: ServerProcess
    command: Path
    data: Path
    adapters: Path

    @property
    def log(self) -> str:
        return self.process.log.read_text()


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForeignServer]:
    home = tmp_path_factory.mktemp("w")
    command = install(build_wheel(home), home / "ein Ordner ü") / "lora-compose"
    data, adapters = home / "dätä dir", home / "mes adaptateurs é"
    data.mkdir()
    shutil.copytree(ADAPTERS_DIR / "roll", adapters / "roll")
    port = free_port()
    options = ["--host", "::1", "--port", str(port), "--data-dir", str(data), "--adapter-root", str(adapters)]
    words = ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", str(data), str(command), "serve", *options]
    started = ServerProcess.run(words, port, home / "log", own_session=False)
    process = replace(started, url=f"http://[::1]:{port}")
    try:
        process.wait_until_ready(300)
        yield ForeignServer(process, command, data, adapters)
    finally:
        process.stop()


def test_it_answers_with_an_adapter_registered_by_its_path(foreign: ForeignServer) -> None:
    with httpx.Client(base_url=foreign.process.url, timeout=60) as http:
        body = {"name": "roll", "path": str(foreign.adapters / "roll")}
        assert http.post("/v1/adapters", json=body).status_code == 201
        question = [{"role": "user", "content": "roll table"}]
        answer = http.post(
            "/v1/chat/completions", json={"model": "roll", "messages": question, "temperature": 0}
        )
    assert answer.json()["choices"][0]["message"]["content"] == "ablet"


def test_the_client_reaches_it_at_an_address_in_brackets(foreign: ForeignServer) -> None:
    for arguments in (["adapters", "list"], ["ask", "say table"]):
        words = [str(foreign.command), *arguments, "--url", foreign.process.url]
        shown = subprocess.run(words, capture_output=True, text=True, check=True)
        assert shown.stdout.strip()


def test_its_log_names_that_address_and_nothing_that_is_harmless(foreign: ForeignServer) -> None:
    assert f"on {foreign.process.url}, ready after" in foreign.log
    levels = [line.split()[2] for line in foreign.log.splitlines()]
    assert levels.count("WARNING") == 1, foreign.log  # there are no API keys


def test_only_the_data_directory_was_written_to(foreign: ForeignServer) -> None:
    pid = foreign.process.process.pid
    status = Path(f"/proc/{pid}/status").read_text()
    assert "CapEff:\t0000000000000000" in status
    mounts = Path(f"/proc/{pid}/mounts").read_text().splitlines()
    assert any(line.split()[1] == "/" and "ro" in line.split()[3].split(",") for line in mounts)
    assert (foreign.data / "registry.db").is_file()


def test_it_ends_with_one_line_and_code_0(foreign: ForeignServer) -> None:
    """The last test here: it ends the server."""
    foreign.process.process.send_signal(signal.SIGTERM)
    assert foreign.process.process.wait(60) == 0
    assert foreign.log.splitlines()[-1].endswith("lora_compose.server.serve: stopped")
    assert json.dumps(foreign.log).count("stopped") == 1
