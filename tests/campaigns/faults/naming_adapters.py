"""Faults of requests: they name adapters that do not exist, or invalid compositions."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from tests.campaigns.faults.broken_adapter import config, made, tensors
from tests.campaigns.faults.fault import Act, Fault, checked, refused
from tests.campaigns.faults.target import BASE, Target

MAX_LORA_RANK = 64
"""The default of --max-lora-rank."""

CHAT = {"messages": [{"role": "user", "content": "roll table"}], "max_tokens": 4}
PATHS: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "x", "max_tokens": 4},
    "/v1/chat/completions": CHAT,
    "/v1/responses": {"input": "x", "max_output_tokens": 4},
    "/tokenize": {"prompt": "x"},
    "/detokenize": {"tokens": [5]},
}
ABSENT = (
    {"model": "unknown"},
    {"model": "org/other-model"},
    {"model": "gpt-4o"},
    {"model": "roll@9"},
    {"model": "roll@nothing"},
    {"model": "roll+unknown"},
    {"model": "svd(roll+unknown)"},
    {"model": f"{BASE}:unknown"},
    {"model": "Roll"},
    {"adapters": [{"name": "unknown"}]},
    {"adapters": [{"name": "roll"}, {"name": "upper@7"}]},
    {"lora": [{"id": "unknown", "scale": 1}]},
    {"merged_adapters": {"ids": ["roll", "unknown"], "weights": [1, 1]}},
)
COMPOSITIONS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"adapters": []}, "400 invalid_composition"),
    ({"adapters": {}}, "400 invalid_composition"),
    ({"adapters": [7]}, "400 invalid_composition"),
    ({"adapters": [{"name": f"a{i}"} for i in range(1000)]}, "400 invalid_composition"),
    ({"adapters": "roll"}, "400 invalid_composition"),
    ({"adapters": [{"name": "roll", "wieght": 1}]}, "400 unknown_field"),
    ({"adapters": [{}]}, "400 invalid_name"),
    ({"adapters": [{"name": "roll"}, {"name": "roll"}]}, "400 duplicate_member"),
    ({"model": "roll+roll"}, "400 duplicate_member"),
    ({"model": "roll@1+roll"}, "400 duplicate_member"),
    ({"model": "+".join(f"a{i}" for i in range(1000))}, "400 invalid_composition"),
    ({"model": "roll+"}, "400 invalid_composition"),
    ({"model": "roll:"}, "400 invalid_weight"),
    ({"model": "("}, "400 invalid_name"),
    ({"model": "svd(roll+upper"}, "400 invalid_name"),
    ({"model": "svd(svd(roll+upper)+dbl)"}, "400 invalid_name"),
    ({"model": "mystery(roll+upper)"}, "400 unknown_method"),
    ({"model": "svd(roll+upper,rank=0)"}, "400 invalid_rank"),
    ({"model": "svd(roll+upper,rank=1e9)"}, "400 invalid_rank"),
    ({"model": "ties(roll+upper)"}, "400 missing_density"),
    ({"model": "ties(roll+upper,density=2)"}, "400 invalid_density"),
    ({"model": "ties(roll+upper,density=0.5,colour=1)"}, "400 unknown_field"),
    ({"adapters": [{"name": "roll"}], "composition": {"method": "nothing"}}, "400 unknown_method"),
    ({"adapters": [{"name": "roll"}], "lora": [{"id": "upper", "scale": 1}]}, "400 conflicting_fields"),
    ({"model": "roll", "adapters": [{"name": "upper"}]}, "400 conflicting_fields"),
    ({"composition": {"method": "svd"}}, "400 conflicting_fields"),
    ({"lora": [{"id": 0, "scale": 1}]}, "404 model_not_found"),
    ({"lora": [{"id": "roll"}]}, "400 invalid_weight"),
    *(
        ({field: "roll"}, "400 unknown_field")
        for field in ("lora_config", "lora_task_id", "lora_request", "adaptors", "merged_adapter", "weights")
    ),
    ({"parameters": {"adapter_id": "roll"}}, "400 unknown_field"),
    ({"extra_body": {"adapters": [{"name": "roll"}]}}, "400 unknown_field"),
    ({"merged_adapters": {"ids": ["roll"], "weights": [1, 2]}}, "400 invalid_weight"),
    ({"merged_adapters": {"ids": ["roll"], "merge_strategy": "magic"}}, "400 unknown_method"),
)
WEIGHTS = ("NaN", "Infinity", "-Infinity", "1e30", "1e999", '"1"', "null", "true", "[1]", "1" + "0" * 400)


def _of(path: str, allowed: str, naming: dict[str, Any]) -> Act:
    return refused(
        allowed,
        send=lambda target: target.http.post(path, json={"model": BASE} | PATHS[path] | naming),
    )


def _weighted(text: str) -> Act:
    body = '{"prompt": "x", "max_tokens": 4, "adapters": [{"name": "roll", "weight": ' + text + "}]}"
    return refused(
        "400 invalid_weight",
        send=lambda t: t.http.post(
            "/v1/completions", content=body, headers={"content-type": "application/json"}
        ),
    )


def _text(target: Target, model: str) -> str:
    reply = target.generate({"model": model, "max_tokens": 8})
    assert reply.status_code == 200, reply.text
    text: str = reply.json()["choices"][0]["text"]
    return text


def _same(target: Target) -> list[str]:
    """One composition written in different ways is prepared once."""
    before = _prepared(target)
    texts = {
        _text(target, model) for model in ("roll:0.25+upper", "upper+roll:0.250", "upper:1.0+roll:2.5e-1")
    }
    assert len(texts) == 1
    assert _prepared(target) <= before + 1
    return ["200"] * 3


def _prepared(target: Target) -> int:
    return len(target.http.get("/v1/residency").json()["host"]["adapters"])


def _hundred_at_once(target: Target) -> list[str]:
    """A new merge is built once, even if a hundred requests need it at the same time."""
    before = _merges(target)
    with ThreadPoolExecutor(100) as pool:
        texts = list(pool.map(lambda _: _text(target, "svd(roll:0.31+upper:0.17,rank=4)"), range(100)))
    assert len(set(texts)) == 1
    assert _merges(target) <= before + 1, "it was built more than once"
    return ["200"] * 100


def _too_wide(target: Target) -> list[str]:
    """A stack of an adapter with the highest allowed rank and another adapter."""

    def widened(directory: Path) -> None:
        config(r=MAX_LORA_RANK)(directory)
        tensors(lambda given: {key: _padded(key, tensor) for key, tensor in given.items()})(directory)

    with target.registered(made(target, widened)):
        reply = target.generate({"model": "case+roll"})
        assert "svd" in reply.text, "the message does not say what to do"
        return [checked(reply, "422 rank_too_large"), checked(target.generate({"model": "case"}), "200")]


def _padded(key: str, tensor: torch.Tensor) -> torch.Tensor:
    missing = MAX_LORA_RANK - min(tensor.shape)
    return torch.nn.functional.pad(tensor, (0, 0, 0, missing) if "lora_A" in key else (0, missing))


def _merges(target: Target) -> float:
    lines = target.http.get("/metrics").text.splitlines()
    return sum(
        float(line.split()[-1]) for line in lines if line.startswith("lora_compose_merge_seconds_count")
    )


FAULTS = (
    Fault(
        "An adapter that does not exist",
        {
            f"{path}: {naming}"[:80]: _of(path, "404 model_not_found", naming)
            for path in PATHS
            for naming in ABSENT
        },
    ),
    Fault(
        "An invalid composition",
        {
            f"{path}: {naming}"[:80]: _of(path, allowed, naming)
            for path in ("/v1/completions", "/v1/chat/completions", "/tokenize")
            for naming, allowed in COMPOSITIONS
        },
    ),
    Fault("An invalid weight", {text[:20]: _weighted(text) for text in WEIGHTS}),
    Fault(
        "A stack whose ranks do not fit",
        {"the limit and one more": _too_wide},
    ),
    Fault("One composition written in three ways", {"one entry": _same}),
    Fault("A hundred first requests for one new merge", {"at once": _hundred_at_once}),
)
