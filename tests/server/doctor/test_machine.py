import socket

import pytest

from lora_compose.server.cpu_defaults import Cpu
from lora_compose.server.doctor import machine
from lora_compose.server.doctor.check import examine


def test_the_machine_the_tests_run_on_can_serve() -> None:
    found = [examine(check) for check in machine.checks(port=1)]
    assert {result.status for result in found if result.name != "port"} <= {"ok", "warn"}


def test_a_port_somebody_listens_on_is_said_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        taken = machine.port_is_free(port)
    assert (taken.status, str(port) in taken.sentence, "--port" in taken.advice) == ("warn", True, True)
    assert machine.port_is_free(port).status == "ok"


@pytest.mark.parametrize(("threads", "status"), [("64", "warn"), ("many", "fail"), ("2", "ok"), ("1", "ok")])
def test_more_threads_than_cores_or_no_number_of_threads_is_said(
    threads: str, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "find_cpu", lambda: Cpu(2, frozenset()))
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    (found,) = [examine(check) for check in machine.checks(port=1) if check.name == "cores"]
    assert found.status == status


@pytest.mark.parametrize(("free", "status"), [(1 << 30, "fail"), (3 << 30, "warn"), (8 << 30, "ok")])
def test_memory_is_what_serve_counts(free: int, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_compose.server.doctor.machine.free_memory", lambda: free)
    found = machine.memory()
    assert (found.status, f"{free / (1 << 30):.1f} GiB are free" in found.sentence) == (status, True)
