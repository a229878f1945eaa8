"""Refusals that need a real engine: vLLM's own, and that they change no later answer."""

from pathlib import Path

import httpx

from tests.server.test_refusals import (
    BAD_NAMES,
    BODIES,
    CONFIGS,
    GOOD,
    PATHS,
    UNREAD,
    WEIGHTS,
    assert_refused,
    broken_copy,
    with_tensors,
)
from tests.server.test_stack import PROMPT, served


def state(http: httpx.Client) -> list[object]:
    """The exact answers of the base and a valid adapter, and the list of the registry."""
    answers = [served(http, model=model) for model in ("testbed-base", "upper")]
    return [http.get("/livez").status_code, http.get("/v1/adapters").json(), *answers]


def test_after_bad_adapters_every_answer_is_what_it_was(http: httpx.Client, adapter_root: Path) -> None:
    before = state(http)
    for config, code in CONFIGS:
        bad = {"name": "bad", "path": str(broken_copy(adapter_root, "bad", **config))}
        assert_refused(http.post("/v1/adapters", json=bad), 422, code)
    for change, code in WEIGHTS:
        bad["path"] = str(with_tensors(broken_copy(adapter_root, "bad"), change))
        assert_refused(http.post("/v1/adapters", json=bad), 422, code)
    for path in PATHS:
        assert_refused(http.post("/v1/adapters", json=bad | {"path": path}), 403, "path_not_allowed")
    for name in BAD_NAMES:
        named = {"name": name, "path": str(GOOD)}
        assert_refused(http.post("/v1/adapters", json=named), 400, "invalid_name")
    assert state(http) == before


def test_after_bad_requests_every_answer_is_what_it_was(http: httpx.Client) -> None:
    before, json = state(http), {"content-type": "application/json"}
    for content, status, code in BODIES:
        assert_refused(http.post("/v1/completions", content=content, headers=json), status, code)
    for method, path, body in UNREAD:
        assert_refused(http.request(method, path, json=body), 400, "unknown_field")
    assert state(http) == before


def test_vllm_s_own_refusals_come_in_our_shape(http: httpx.Client) -> None:
    for body in ({"max_tokens": -1}, {"temperature": -1}, {"n": 10**9}, {"logprobs": 10**6}):
        reply = http.post("/v1/completions", json={"model": "roll", "prompt": PROMPT} | body)
        assert_refused(reply, 400, "invalid_request")
    long = http.post("/v1/completions", json={"model": "roll", "prompt": "x" * 100_000})
    assert_refused(long, 400, "invalid_request")


def test_saved_compositions_are_served_by_name(http: httpx.Client) -> None:
    created = http.post("/v1/compositions", json={"name": "duo", "model": "roll:0.9+upper"})
    assert (created.status_code, created.json()["resolved"]) == (201, "roll@1:0.9+upper@1")
    assert served(http, model="duo") == served(http, model="roll:0.9+upper")
    assert "duo" in [card["id"] for card in http.get("/v1/models").json()["data"]]
    assert http.delete("/v1/compositions/duo").status_code == 204


def test_tokenize_and_detokenize_take_a_composition(http: httpx.Client) -> None:
    tokens = http.post("/tokenize", json={"model": "roll+upper", "prompt": "abc"}).json()["tokens"]
    text = http.post("/detokenize", json={"model": "roll+upper", "tokens": tokens}).json()["prompt"]
    assert text.endswith("abc")
    assert http.post("/tokenize", json={"model": "nobody", "prompt": "abc"}).status_code == 404


def test_vllm_s_load_and_unload_routes_work(http: httpx.Client) -> None:
    loaded = http.post("/v1/load_lora_adapter", json={"lora_name": "ctl", "lora_path": str(GOOD)})
    assert (loaded.status_code, loaded.text[:8]) == (200, "Success:")
    assert served(http, model="ctl") == served(http, model="roll")
    assert http.post("/v1/unload_lora_adapter", json={"lora_name": "ctl"}).status_code == 200
    again = http.post("/v1/unload_lora_adapter", json={"lora_name": "ctl"})
    assert_refused(again, 404, "model_not_found")


def test_metrics_show_ours_and_vllm_s(http: httpx.Client) -> None:
    served(http, model="roll+upper")
    text = http.get("/metrics").text
    assert 'lora_compose_requests_total{kind="stack",status="2xx"}' in text
    assert "vllm:" in text
    assert http.get("/health").status_code == http.get("/readyz").status_code == 200


def test_the_base_s_card_names_its_directory(http: httpx.Client) -> None:
    card = http.get("/v1/models").json()["data"][0]
    assert (Path(card["root"]) / "config.json").is_file()
    assert http.get("/v1/models/testbed-base").json() == card
