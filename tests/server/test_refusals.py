"""Invalid input gets a clear 4xx in OpenAI's shape and changes nothing. No engine is needed."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.server.app_without_engine import AppWithoutEngine

GOOD = ADAPTERS_DIR / "roll"
CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"r": 0}, "bad_rank"),
    ({"r": 8.5}, "bad_rank"),
    ({"r": 128}, "rank_too_large"),
    ({"r": 16}, "rank_mismatch"),
    ({"lora_alpha": "16"}, "bad_alpha"),
    ({"lora_alpha": 1e38}, "bad_alpha"),
    ({"use_dora": True}, "corrupt_weights"),
    ({"lora_bias": "yes"}, "bad_adapter_config"),
    ({"modules_to_save": ["lm_head"]}, "unsupported_feature"),
    ({"peft_type": "IA3"}, "unsupported_feature"),
]
WEIGHTS: list[tuple[Any, str]] = [
    (lambda _, t: torch.full_like(t, float("nan")), "non_finite_weights"),
    (lambda _, t: torch.full_like(t, float("inf")), "non_finite_weights"),
    (lambda _, t: t.to(torch.int8), "unsupported_feature"),
    (lambda k, t: t[:, : t.shape[1] // 2].contiguous() if "lora_A" in k else t, "wrong_base"),
]
BODIES: list[tuple[bytes, int, str]] = [
    (b"{", 400, "invalid_json"),
    (b"[]", 400, "invalid_json"),
    (b"[" * 100_000, 400, "invalid_json"),
    (b'{"model": 7}', 400, "invalid_model"),
    (b'{"model": "nobody", "prompt": "x"}', 404, "model_not_found"),
    (b'{"model": "roll@9", "prompt": "x"}', 404, "model_not_found"),
    (b'{"model": "roll:NaN", "prompt": "x"}', 400, "invalid_weight"),
    (b'{"adapters": [{"name": "roll", "weight": NaN}], "prompt": "x"}', 400, "invalid_weight"),
    (b'{"adapters": [{"name": "roll", "weight": 1e999}], "prompt": "x"}', 400, "invalid_weight"),
    (
        b'{"adapters": [{"name": "roll", "weight": 1' + b"0" * 400 + b'}], "prompt": "x"}',
        400,
        "invalid_weight",
    ),
    (b'{"adapters": [{"name": "roll", "wieght": 1}], "prompt": "x"}', 400, "unknown_field"),
    (b'{"lora_request": "roll", "prompt": "x"}', 400, "unknown_field"),
    (b'{"adaptors": [{"name": "roll"}], "prompt": "x"}', 400, "unknown_field"),
    (b'{"prompt": "x", "extra_body": {"adapters": [{"name": "roll"}]}}', 400, "unknown_field"),
    (b'{"adapters": [], "prompt": "x"}', 400, "invalid_composition"),
    (
        b'{"adapters": [{"name": "roll"}], "lora": [{"id": "upper", "scale": 1}]}',
        400,
        "conflicting_fields",
    ),
    (b'{"model": "mystery(roll+upper)", "prompt": "x"}', 400, "unknown_method"),
]
UNREAD: list[tuple[str, str, Any]] = [
    ("PUT", "/v1/adapters/roll/aliases/prod", {"version": 1, "verison": 1}),
    ("POST", "/v1/adapters", {"name": "x", "path": str(GOOD), "is_3d_lora_weight": True}),
    ("PUT", "/v1/fusion", {"model": "roll", "lora_int_id": 1}),
    ("POST", "/v1/compositions?dryrun=true", {"name": "typo", "model": "roll+upper"}),
    ("DELETE", "/v1/adapters/roll?cascde=true", None),
]
PATHS = ["/etc", "/proc/self", "~", "/nonexistent/x", "relative/../..", "\0"]
BAD_NAMES = ["", None, 7, "../x", "a/../b", "a//b", "a/pin", "a b", "x\n", "a,b", "ü", "n" * 20000]


@pytest.fixture
def http(plain_http: httpx.Client) -> httpx.Client:
    """Refusals need no engine. `test_refusals_served.py` uses a real one."""
    return plain_http


@pytest.fixture
def adapter_root(plain: AppWithoutEngine) -> Path:
    """A directory from which adapters may be registered."""
    return plain.data_dir.parent


@pytest.fixture
def unchanged(http: httpx.Client) -> Iterator[None]:
    """The registry lists the same as before, and the engine was not called."""
    before = state(http)
    yield
    assert state(http) == before


def state(http: httpx.Client) -> list[Any]:
    lists = [http.get(f"/v1/{name}").json() for name in ("adapters", "compositions", "models", "residency")]
    return [http.get("/livez").status_code, *lists]


def assert_refused(reply: httpx.Response, status: int, code: str) -> None:
    assert (reply.status_code, reply.json()["error"].get("code")) == (status, code), reply.text
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
    assert reply.headers["x-should-retry"] == "false"
    assert reply.headers["x-request-id"]
    assert not any(secret in reply.text for secret in ("/tmp", "Traceback", "File \\"))


def broken_copy(root: Path, name: str, **config: Any) -> Path:
    shutil.rmtree(root / name, ignore_errors=True)
    shutil.copytree(GOOD, root / name)
    path = root / name / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return root / name


def with_tensors(directory: Path, change: Any) -> Path:
    weights = load_file(directory / "adapter_model.safetensors")
    save_file({k: change(k, v) for k, v in weights.items()}, directory / "adapter_model.safetensors")
    return directory


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("config", "code"),
    CONFIGS,
)
def test_a_config_that_cannot_be_served_is_refused(
    http: httpx.Client, adapter_root: Path, config: dict[str, Any], code: str
) -> None:
    directory = broken_copy(adapter_root, "bad", **config)
    assert_refused(http.post("/v1/adapters", json={"name": "bad", "path": str(directory)}), 422, code)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("change", "code"),
    WEIGHTS,
)
def test_weights_that_would_poison_or_misfit_are_refused(
    http: httpx.Client, adapter_root: Path, change: Any, code: str
) -> None:
    directory = with_tensors(broken_copy(adapter_root, "bad"), change)
    assert_refused(http.post("/v1/adapters", json={"name": "bad", "path": str(directory)}), 422, code)


@pytest.mark.usefixtures("unchanged")
def test_corrupt_missing_and_pickled_weights_are_refused(http: httpx.Client, adapter_root: Path) -> None:
    weights = broken_copy(adapter_root, "bad") / "adapter_model.safetensors"
    body = {"name": "bad", "path": str(weights.parent)}
    weights.write_bytes(weights.read_bytes()[:-100])
    assert_refused(http.post("/v1/adapters", json=body), 422, "corrupt_weights")
    weights.unlink()
    assert_refused(http.post("/v1/adapters", json=body), 422, "missing_weights")
    weights.with_name("adapter_model.bin").write_bytes(b"\x80\x04.")
    assert_refused(http.post("/v1/adapters", json=body), 422, "pickle_refused")
    os.mkfifo(weights)
    assert_refused(http.post("/v1/adapters", json=body, timeout=5), 422, "not_a_regular_file")


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("path", PATHS)
def test_a_path_outside_the_roots_tells_nothing(http: httpx.Client, path: str) -> None:
    reply = http.post("/v1/adapters", json={"name": "probe", "path": path})
    assert_refused(reply, 403, "path_not_allowed")
    other = http.post("/v1/adapters", json={"name": "probe", "path": "/another"})
    assert reply.json() == other.json()


@pytest.mark.usefixtures("unchanged")
def test_a_link_out_of_the_root_is_a_path_outside_it(
    http: httpx.Client, adapter_root: Path, tmp_path: Path
) -> None:
    shutil.copytree(GOOD, tmp_path / "outside")
    (adapter_root / "link").symlink_to(tmp_path / "outside")
    reply = http.post("/v1/adapters", json={"name": "probe", "path": str(adapter_root / "link")})
    assert_refused(reply, 403, "path_not_allowed")
    (adapter_root / "files").mkdir()
    for file in (tmp_path / "outside").iterdir():
        (adapter_root / "files" / file.name).symlink_to(file)
    reply = http.post("/v1/adapters", json={"name": "probe", "path": str(adapter_root / "files")})
    assert_refused(reply, 403, "path_not_allowed")
    assert "link that leads out of every --adapter-root" in reply.json()["error"]["message"]


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_is_none_is_refused(http: httpx.Client, name: object) -> None:
    assert_refused(http.post("/v1/adapters", json={"name": name, "path": str(GOOD)}), 400, "invalid_name")


@pytest.mark.usefixtures("unchanged")
def test_a_reserved_name_is_a_conflict(http: httpx.Client) -> None:
    for name in ("testbed-base", "ties"):
        assert_refused(
            http.post("/v1/adapters", json={"name": name, "path": str(GOOD)}), 409, "name_reserved"
        )


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("body", "status", "code"),
    BODIES,
)
def test_a_request_that_cannot_be_answered_is_refused(
    http: httpx.Client, body: bytes, status: int, code: str
) -> None:
    reply = http.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    assert_refused(reply, status, code)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("POST", "/v1/chat/completions/", 404, "not_found"),
        ("POST", "//v1/completions", 404, "not_found"),
        ("POST", "/invocations", 404, "not_offered"),
        ("POST", "/collective_rpc", 404, "not_offered"),
        ("GET", "/v1/models/nobody", 404, "model_not_found"),
        ("GET", "/v1/adapters/nobody", 404, "model_not_found"),
        ("DELETE", "/v1/compositions/nobody", 404, "composition_not_found"),
    ],
)
def test_what_is_not_listed_does_not_exist(
    http: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    assert_refused(http.request(method, path), status, code)


def test_a_method_that_is_not_taken_is_told_those_that_are(http: httpx.Client) -> None:
    reply = http.put("/v1/adapters")
    assert_refused(reply, 405, "method_not_allowed")
    assert reply.headers["allow"] == "GET, HEAD, POST"


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("method", "path", "body"),
    UNREAD,
)
def test_what_nobody_reads_is_refused(http: httpx.Client, method: str, path: str, body: Any) -> None:
    assert_refused(http.request(method, path, json=body), 400, "unknown_field")


@pytest.mark.usefixtures("unchanged")
def test_a_flag_is_true_false_or_only_named(http: httpx.Client) -> None:
    body = {"name": "flagged", "model": "roll+upper"}
    for given in ("dry_run", "dry_run=true"):
        assert http.post(f"/v1/compositions?{given}", json=body).json()["error"] == 0
    for given in ("dry_run=yes", "dry_run=true&dry_run=false"):
        assert_refused(http.post(f"/v1/compositions?{given}", json=body), 400, "invalid_request")


def test_another_content_type_or_encoding_is_refused(http: httpx.Client) -> None:
    for headers in ({"content-type": "text/plain"}, {"content-encoding": "gzip"}):
        assert_refused(
            http.post("/v1/completions", content=b"{}", headers=headers), 415, "unsupported_media_type"
        )


def test_a_body_too_large_is_refused_before_it_is_read(http: httpx.Client) -> None:
    reply = http.post("/v1/completions", content=b"x" * (33 << 20))
    assert_refused(reply, 413, "request_too_large")


@pytest.mark.usefixtures("unchanged")
def test_an_upload_that_is_none_is_refused(http: httpx.Client) -> None:
    config = (GOOD / "adapter_config.json").read_bytes()
    weights = (GOOD / "adapter_model.safetensors").read_bytes()
    both = {"adapter_config.json": config, "adapter_model.safetensors": weights}
    assert_refused(http.post("/v1/adapters", files=both), 400, "invalid_name")
    one = http.post("/v1/adapters", data={"name": "up"}, files={"adapter_config.json": config})
    assert_refused(one, 400, "invalid_upload")
    extra = http.post("/v1/adapters", data={"name": "up"}, files={"evil.py": b"x"})
    assert_refused(extra, 400, "unknown_field")
    digest = http.post("/v1/adapters", data={"name": "up", "digest": "0" * 64}, files=both)
    assert_refused(digest, 400, "digest_mismatch")


@pytest.mark.usefixtures("unchanged")
def test_an_adapter_a_saved_composition_needs_is_not_removed(http: httpx.Client) -> None:
    http.post("/v1/compositions", json={"name": "needs-polite", "model": "roll+polite"}).raise_for_status()
    assert_refused(http.delete("/v1/adapters/polite"), 409, "in_use")
    assert http.delete("/v1/compositions/needs-polite").status_code == 204
