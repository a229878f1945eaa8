"""Small programs stand in for the server. `tests/running_server.py` starts the real one the same way."""

import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.server.client import process
from lora_compose.server.client.process import ServerProcess, free_port, serve_command

SERVES_A_DIRECTORY = ("-m", "http.server", "--bind", "127.0.0.1")
IGNORES_SIGTERM = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def start(log: Path, *arguments: str, ready_path: str = "/") -> ServerProcess:
    port = free_port()
    return ServerProcess.run([sys.executable, *arguments, str(port)], port, log, ready_path=ready_path)


def test_it_is_ready_when_it_answers_and_ended_when_the_context_is_left(tmp_path: Path) -> None:
    with start(tmp_path / "log", *SERVES_A_DIRECTORY) as server:
        server.wait_until_ready()
        assert httpx.get(server.url).is_success
    assert not psutil.pid_exists(server.process.pid)


def test_another_program_at_its_port_does_not_count(tmp_path: Path) -> None:
    """The start fails, and the caller sends no request to the other server."""
    with start(tmp_path / "log", *SERVES_A_DIRECTORY) as other:
        other.wait_until_ready()
        port = int(other.url.rpartition(":")[2])
        waits = [sys.executable, "-c", "import time; time.sleep(600)"]
        with ServerProcess.run(waits, port, tmp_path / "log2", ready_path="/") as late:
            with pytest.raises(LoraComposeError, match="was not ready after 1 s"):
                late.wait_until_ready(1)
            assert httpx.get(late.url).is_success


PARENT = """
import sys, time
from pathlib import Path
from lora_compose.server.client.process import ServerProcess
server = ServerProcess.run([sys.executable, "-c", "import time; time.sleep(600)"], 9, Path(sys.argv[1]))
print(server.process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.usefixtures("hangup")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_it_ends_with_the_process_that_started_it(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(number)
    child.wait(10)


def test_a_server_that_ends_is_an_error_with_its_code_and_the_end_of_its_log(tmp_path: Path) -> None:
    fails = "print('no such model'); raise SystemExit(3)"
    with (
        start(tmp_path / "log", "-c", fails) as server,
        pytest.raises(LoraComposeError, match=r"ended with code 3(.|\n)*no such model") as failure,
    ):
        server.wait_until_ready()
    assert failure.value.code == "server_not_ready"


def test_a_server_that_answers_but_is_not_ready_is_waited_for_in_vain(tmp_path: Path) -> None:
    with (
        start(tmp_path / "log", *SERVES_A_DIRECTORY, ready_path="/readyz") as server,
        pytest.raises(LoraComposeError, match="was not ready after 1 s"),
    ):
        server.wait_until_ready(1)


def test_one_that_ignores_sigterm_is_killed_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "STOP_SECONDS", 0.2)
    server = start(tmp_path / "log", "-c", IGNORES_SIGTERM)
    while not server.log.read_text().endswith("\n"):
        assert server.process.poll() is None
    child = psutil.Process(int(server.log.read_text()))
    assert server.stop() < 0
    child.wait(10)


def test_variables_that_are_set_already_win_over_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    show = "import os; print(os.environ['VLLM_LOGGING_LEVEL'])"
    server = start(tmp_path / "log", "-c", show)
    assert server.process.wait(10) == 0
    assert server.log.read_text() == "DEBUG\n"


def test_the_command_is_the_one_installed_beside_this_python() -> None:
    command = serve_command(8001, ["--strict"])
    assert Path(command[0]).parent == Path(sys.executable).parent
    assert command[1:] == ["serve", "--port", "8001", "--strict"]
