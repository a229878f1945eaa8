"""Servers that several modules share, besides the one in `tests/conftest.py`."""

from collections.abc import Iterator

import httpx
import pytest

from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.server.app_without_engine import AppWithoutEngine, app_without_engine, register_shipped
from tests.server.guarded_server import Collector, GuardedServer, collecting, guarded_server
from tests.server.lone_server import LoneServer


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppWithoutEngine]:
    """The server without an engine and without keys, with every shipped adapter registered."""
    with app_without_engine(tmp_path_factory.mktemp("plain")) as app:
        with app.client() as client:
            register_shipped(client, sorted(path.name for path in ADAPTERS_DIR.iterdir()))
        yield app


@pytest.fixture
def plain_http(plain: AppWithoutEngine) -> Iterator[httpx.Client]:
    with plain.client() as client:
        yield client


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """An OTLP collector that keeps the spans of the guarded server."""
    with collecting() as found:
        yield found


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[GuardedServer]:
    """A real server with an operator's key, an admin port, JSON logs and tracing."""
    with guarded_server(tmp_path_factory.mktemp("guarded"), collector) as server:
        yield server


@pytest.fixture(scope="session")
def lone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoneServer]:
    """A real server whose engine tests may kill, and which they may restart."""
    server = LoneServer.start(tmp_path_factory.mktemp("lone"))
    try:
        yield server
    finally:
        assert server.running.stop() == 0
