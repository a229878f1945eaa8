"""`GET /v1/models/{id}` knows every name that `model` may have in a request or a response."""

from urllib.parse import quote

import httpx
import pytest

from tests.server.test_refusals import assert_refused


@pytest.mark.parametrize(
    "model",
    [
        "roll",
        "roll@1",
        "roll+upper",
        "roll:0.7+upper@1:-2",
        "svd(roll+upper,rank=4)",
        "ties(roll:0.5+upper,density=0.3)",
        "testbed-base",
        "testbed-base:roll",
    ],
)
@pytest.mark.parametrize("safe", ["", "+:@(),="])
def test_the_model_of_a_response_has_a_card(plain_http: httpx.Client, model: str, safe: str) -> None:
    asked = plain_http.post("/v1/completions", json={"model": model, "prompt": "x"}).raise_for_status()
    for name in (model, asked.json()["model"]):
        card = plain_http.get("/v1/models/" + quote(name, safe=safe)).raise_for_status().json()
        assert (card["id"], card["object"]) == (name, "model")


def test_the_card_of_a_composition_names_its_versions_and_its_base(plain_http: httpx.Client) -> None:
    card = plain_http.get("/v1/models/upper+roll:0.7").json()
    assert (card["root"], card["parent"]) == ("roll@1:0.7+upper@1", "testbed-base")
    assert (
        plain_http.get("/v1/models/roll@1").json()["rank"] == plain_http.get("/v1/models/roll").json()["rank"]
    )


@pytest.mark.parametrize(
    "model",
    [
        "roll@9",
        "roll@nothing",
        "roll+unknown",
        "roll:NaN",
        "roll+",
        "ties(roll+upper)",
        "org/model",
        "roll+roll",
    ],
)
def test_what_cannot_be_served_is_not_a_model(plain_http: httpx.Client, model: str) -> None:
    assert_refused(plain_http.get(f"/v1/models/{model}"), 404, "model_not_found")
