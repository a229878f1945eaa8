"""A server whose engine is a stand-in, and one browser, for the tests of the page."""

from collections.abc import Iterator

import pytest

from tests.browser import Page, browser
from tests.server.app_without_engine import AppWithoutEngine, StandIn, app_without_engine, register_shipped
from tests.server.playground.answers import answer
from tests.server.playground.steps import opened


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppWithoutEngine]:
    home = tmp_path_factory.mktemp("playground")
    with app_without_engine(home, engine=StandIn(app=answer)) as made:
        with made.client() as client:
            register_shipped(client, ["roll", "upper", "wrap"])
        yield made


@pytest.fixture(scope="package")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("browser") / "profile") as page:
        yield page


@pytest.fixture
def page(app: AppWithoutEngine, tab: Page) -> Iterator[Page]:
    """The page, newly opened. Afterwards: it reported no error, and asked no other server for anything."""
    yield from opened(tab, app.url)
