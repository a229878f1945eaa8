"""The checks of a start that need no vLLM: each refusal is one line that names the flag."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from lora_compose.adapters.command_line import default_data_dir
from lora_compose.adapters.errors import LoraComposeError
from lora_compose.server.client.process import COMMAND, free_port
from lora_compose.server.config import EMBEDDED_BASE, ServerConfig
from lora_compose.server.options.http_options import HttpOptions
from lora_compose.server.preflight import (
    check_model,
    check_tls,
    listen,
    prepare_data_dir,
    set_home,
)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another program listens on."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def refusal_of(config: ServerConfig) -> LoraComposeError:
    with pytest.raises(LoraComposeError) as refused:
        listen(config)
    return refused.value


def test_a_port_in_use_is_refused_with_its_flag(taken: int) -> None:
    error = refusal_of(ServerConfig(port=taken))
    assert (error.code, f"--port {taken} is in use" in error.message) == ("port_in_use", True)


def test_so_is_the_administration_port_and_the_main_port_is_free_again(taken: int) -> None:
    port = free_port()
    error = refusal_of(ServerConfig(port=port, admin_port=taken))
    assert (error.code, f"--admin-port {taken} is in use" in error.message) == ("port_in_use", True)
    socket.create_server(("127.0.0.1", port)).close()


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_refused(host: str) -> None:
    error = refusal_of(ServerConfig(host=host, port=free_port()))
    assert (error.code, f"--host {host}" in error.message) == ("address_unusable", True)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_connections_are_accepted_from_then_on(host: str) -> None:
    port = free_port()
    main, admin = listen(ServerConfig(host=host, port=port))
    socket.create_connection(("127.0.0.1", port)).close()
    assert admin == []
    for opened in main:
        opened.close()


def test_an_ipv6_address_is_listened_on() -> None:
    port = free_port()
    try:
        socket.create_server(("::1", port), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    main, _ = listen(ServerConfig(host="::1", port=port))
    socket.create_connection(("::1", port)).close()
    main[0].close()


def test_a_directory_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoraComposeError, match=r"has no config\.json"):
        check_model(str(tmp_path))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(LoraComposeError, match="is an adapter, not a model"):
        check_model(str(tmp_path))
    check_model(str(EMBEDDED_BASE))
    check_model("org/model")


def test_a_data_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LoraComposeError, match=r"--data-dir .* cannot be written to: Not a directory"):
        prepare_data_dir(tmp_path / "file" / "data")
    prepare_data_dir(tmp_path / "a path with spaces" / "data")
    assert list((tmp_path / "a path with spaces" / "data").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (
            {"ssl_certfile": Path("/no"), "ssl_keyfile": Path("k")},
            "--ssl-certfile /no and --ssl-keyfile k cannot",
        ),
        ({"ssl_certfile": Path("/no")}, "--ssl-certfile /no cannot be used: No such file"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_refused(options: dict[str, Any], part: str) -> None:
    with pytest.raises(LoraComposeError, match=part):
        check_tls(HttpOptions(**options))


def test_a_unix_socket_is_listened_on_and_one_left_behind_is_replaced(tmp_path: Path) -> None:
    config = ServerConfig(http=HttpOptions(uds=tmp_path / "socket"))
    for _ in range(2):
        main, admin = listen(config)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "socket"))
        assert admin == []
        main[0].close()


def test_a_unix_socket_in_use_or_a_path_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    config = ServerConfig(http=HttpOptions(uds=tmp_path / "socket"))
    main, _ = listen(config)
    assert refusal_of(config).code == "port_in_use"
    main[0].close()
    (tmp_path / "file").write_text("kept")
    assert refusal_of(ServerConfig(http=HttpOptions(uds=tmp_path / "file"))).code == "port_in_use"
    assert (tmp_path / "file").read_text() == "kept"
    for path in (tmp_path / "no" / "socket", tmp_path / ("x" * 200)):
        assert refusal_of(ServerConfig(http=HttpOptions(uds=path))).code == "address_unusable"


def test_a_unix_socket_is_local_whatever_the_host(tmp_path: Path) -> None:
    assert ServerConfig(host="0.0.0.0", http=HttpOptions(uds=tmp_path / "socket")).is_local


def test_a_user_without_a_home_directory_gets_one_in_the_data_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    set_home(tmp_path / "data")
    assert os.environ["HOME"] == str(tmp_path)
    monkeypatch.setenv("HOME", "/nonexistent")
    set_home(tmp_path / "data")
    assert os.environ["HOME"] == str(tmp_path / "data")


def test_the_default_data_directory_needs_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home(_: str) -> Path:
        raise RuntimeError

    monkeypatch.setattr("lora_compose.adapters.command_line.user_data_path", no_home)
    assert default_data_dir() == Path("lora-compose-data")


def test_the_command_refuses_with_one_line_and_code_1(taken: int, tmp_path: Path) -> None:
    command = [COMMAND, "serve", "--port", str(taken), "--data-dir", str(tmp_path / "data")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, len(ended.stderr.splitlines())) == (1, "", 1)
    assert ended.stderr.startswith(f"error: --port {taken} is in use")
    assert not (tmp_path / "data").exists()


def test_a_server_on_a_unix_socket_answers_there_and_removes_it_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    command = [COMMAND, "serve", "--uds", str(path), "--data-dir", str(tmp_path / "data")]
    transport = httpx.HTTPTransport(uds=str(path))
    with (
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server,
        httpx.Client(transport=transport, base_url="http://localhost", timeout=30) as client,
    ):
        while not path.exists() and server.poll() is None:
            time.sleep(0.05)
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").json()["status"] == "loading"
        server.terminate()
        assert server.wait(60) == 0
    assert not path.exists()
