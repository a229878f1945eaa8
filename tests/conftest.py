"""The one running server that all server tests share, and clients for it."""

import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import openai
import pytest
import torch
from hypothesis import settings

from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.running_server import RunningServer

settings.register_profile("gate", deadline=None)
settings.load_profile("gate")  # No test asserts a time, and the machine may be busy.


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """A team of threads waits by spinning: where the other core has work, a step takes ten times as long."""
    torch.set_num_threads(1)


@pytest.fixture
def hangup() -> Iterator[None]:
    """A hangup ends the processes that a test starts. Under `nohup` it would not."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session")
def adapter_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory the shared server may register adapters from; tests put theirs into it."""
    return tmp_path_factory.mktemp("adapter-root")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, adapter_root: Path) -> Iterator[RunningServer]:
    """The shared server: the embedded base with its trained adapters registered."""
    home = tmp_path_factory.mktemp("server")
    options = ["--adapter-root", str(adapter_root), "--adapter-root", str(ADAPTERS_DIR)]
    running = RunningServer.start(home / "data", home / "log", options)
    try:
        running.wait_until_ready()
        for directory in sorted(ADAPTERS_DIR.iterdir()):
            body = {"name": directory.name, "path": str(directory)}
            httpx.post(f"{running.url}/v1/adapters", json=body, timeout=30).raise_for_status()
        yield running
    finally:
        running.stop()


@pytest.fixture
def http(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture
async def async_http(server: RunningServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    """The real client, with its defaults apart from the address."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused") as made:
        yield made
