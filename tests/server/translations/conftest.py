"""The server in front of a stand-in for vLLM that answers in vLLM's shapes."""

from collections.abc import Iterator

import httpx
import pytest

from tests.server.app_without_engine import StandIn, app_without_engine, register_shipped
from tests.server.translations.vllm_stand_in import VllmStandIn


@pytest.fixture(scope="session")
def answering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[VllmStandIn, httpx.Client]]:
    vllm = VllmStandIn()
    home = tmp_path_factory.mktemp("translations")
    with app_without_engine(home, engine=StandIn(app=vllm)) as app, app.client() as client:
        register_shipped(client, ("roll", "upper"))
        yield vllm, client


@pytest.fixture
def vllm(answering: tuple[VllmStandIn, httpx.Client]) -> Iterator[VllmStandIn]:
    """The stand-in, as it is at first."""
    stand_in = answering[0]
    stand_in.__dict__.update(VllmStandIn().__dict__)
    yield stand_in
    stand_in.__dict__.update(VllmStandIn().__dict__)


@pytest.fixture
def client(answering: tuple[VllmStandIn, httpx.Client]) -> httpx.Client:
    return answering[1]
