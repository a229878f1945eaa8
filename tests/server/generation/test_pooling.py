"""The routes that embed and score: the one pipeline if the base can, and the reason if it cannot."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from lora_compose.server.generation.request_checks import sequences
from lora_compose.server.paths import GENERATING, NAMING, POOLING
from tests.server.app_without_engine import (
    OPERATOR_KEY,
    AppWithoutEngine,
    StandIn,
    app_without_engine,
    register_shipped,
)
from tests.server.test_refusals import assert_refused

EMBEDS = frozenset((*POOLING, *NAMING)) - {"/classify", "/v1/messages/count_tokens"}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppWithoutEngine]:
    home = tmp_path_factory.mktemp("embeds")
    with app_without_engine(home, api_keys=[OPERATOR_KEY], engine=StandIn(paths=EMBEDS)) as made:
        with made.client(OPERATOR_KEY) as http:
            register_shipped(http, ["roll", "upper"])
        yield made


@pytest.mark.parametrize("path", sorted(EMBEDS.intersection(POOLING)))
def test_a_composition_is_resolved_and_refusals_are_ours(app: AppWithoutEngine, path: str) -> None:
    with app.client(app.create_key(path.replace("/", "-")[1:]), admin=False) as http:
        reply = http.post(path, json={"model": "roll:0.5+upper", "input": "x"})
        assert reply.json()["model"] == reply.headers["x-lora-composition"] == "roll@1:0.5+upper@1"
        assert_refused(http.post(path, json={"model": "nobody"}), 404, "model_not_found")
        assert_refused(http.post(path, json={"lora_request": "roll"}), 400, "unknown_field")


@pytest.mark.parametrize("path", [*GENERATING, "/classify", "/v1/messages/count_tokens"])
def test_a_base_that_embeds_says_what_it_cannot(app: AppWithoutEngine, path: str) -> None:
    with app.client(OPERATOR_KEY, admin=False) as http:
        reply = http.post(path, json={"model": "roll"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_offered")
    assert "The base" in reply.json()["error"]["message"]


@pytest.mark.parametrize("path", POOLING)
def test_a_base_that_generates_says_how_to_get_one_that_embeds(plain_http: httpx.Client, path: str) -> None:
    reply = plain_http.post(path, json={"model": "roll", "input": "x"})
    assert_refused(reply, 404, "not_offered")
    assert "--runner pooling" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body", "count"),
    [
        ("/v1/embeddings", {"input": "a"}, 1),
        ("/v1/embeddings", {"input": [1, 2, 3]}, 1),
        ("/v1/embeddings", {"input": ["a", "b"]}, 2),
        ("/v2/embed", {"texts": ["a", "b", "c"]}, 3),
        ("/score", {"queries": "a", "documents": ["b", "c"]}, 3),
        ("/rerank", {"query": "a", "documents": ["b", "c"]}, 2),
        ("/pooling", {}, 1),
        ("/v1/responses", {"input": ["a", "b"]}, 1),
    ],
)
def test_each_text_counts(path: str, body: dict[str, Any], count: int) -> None:
    assert sequences(body, path) == count


def test_a_key_with_two_in_flight_embeds_two_texts(app: AppWithoutEngine) -> None:
    with app.client(app.create_key("small", quotas={"in_flight": 2})) as http:
        assert http.post("/v1/embeddings", json={"model": "roll", "input": ["a", "b"]}).status_code == 200
        refused = http.post("/v1/embeddings", json={"model": "roll", "input": ["a", "b", "c"]})
        assert_refused(refused, 429, "quota_exceeded")
