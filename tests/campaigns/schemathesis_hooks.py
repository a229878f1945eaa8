"""Hooks for `st run`, which has its own Python: they make requests more useful, and check more.

Two thirds of the generated requests get names, paths and prompts that exist; one or two fields stay
unchanged. Lengths are bounded so that a case takes milliseconds. Only schemathesis imports this module.
"""

import os
import random
from typing import Any

import schemathesis  # type: ignore[import-not-found]

NAMES = os.environ["FUZZ_NAMES"].split(",")
ROOT = os.environ["FUZZ_ROOT"]
SECRETS = ("Traceback", 'File "', "site-packages", os.environ["FUZZ_DATA_DIR"])
GENERATING: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "roll table"}], "max_tokens": 4},
    "/v1/completions": {"prompt": "roll table", "max_tokens": 4},
    "/v1/responses": {"input": "roll table", "max_output_tokens": 4},
    "/tokenize": {"prompt": "roll table"},
    "/detokenize": {"tokens": [1, 2]},
}
MOST = dict.fromkeys(("max_tokens", "max_completion_tokens", "max_output_tokens", "logprobs"), 4)
MOST |= dict.fromkeys(("n", "best_of", "min_tokens", "prompt_logprobs", "top_logprobs"), 2)
SHORT = {"requests": 1, "output_tokens": 2, "prompt_tokens": 1, "repeats": 1, "max_seconds": 1}
HUGE = 100_000
"""Numbers above this are not changed. The server must refuse them."""


@schemathesis.hook  # type: ignore[untyped-decorator]
def before_call(_: Any, case: Any, __: Any) -> None:
    path, body = case.operation.path, case.body
    if case.operation.method.upper() != "DELETE" and random.random() < 0.6 and "/adapters/" in path:
        known = {name: random.choice(NAMES) for name in case.path_parameters if name != "alias"}
        case.path_parameters.update(known)
    if not isinstance(body, dict):
        return
    if path in GENERATING:
        case.body = body = _answerable(path, body)
    if path == "/v1/benchmarks":
        body.update({name: SHORT[name] for name in SHORT if name in body or random.random() < 0.9})
    if random.random() < 0.6:
        _name(body)


def _answerable(path: str, body: dict[str, Any]) -> dict[str, Any]:
    if random.random() < 0.75:
        few = random.sample(sorted(body), min(len(body), random.choice((1, 1, 2, 3))))
        body = GENERATING[path] | {"model": random.choice(NAMES)} | {name: body[name] for name in few}
    body = {name: _bounded(name, value) for name, value in body.items()}
    limit = "max_output_tokens" if path == "/v1/responses" else "max_tokens"
    return {limit: 4} | body if path.startswith("/v1/") else body


def _bounded(name: str, value: Any) -> Any:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return MOST[name] if name in MOST and is_number and MOST[name] < value <= HUGE else value


def _name(body: dict[str, Any]) -> None:
    """Replace generated names and paths by ones that exist."""
    one, two = random.sample(NAMES, 2)
    if isinstance(body.get("model"), str):
        body["model"] = random.choice((one, f"{one}:0.5+{two}", f"svd({one}+{two},rank=4)", "testbed-base"))
    for field in ("path", "lora_path"):
        if isinstance(body.get(field), str):
            body[field] = f"{ROOT}/{one}"
    for field, key in (("adapters", "name"), ("lora", "id")):
        entries = body.get(field)
        listed = entries if isinstance(entries, list) else []
        for entry, name in zip(listed, random.sample(NAMES, len(NAMES)), strict=False):
            if isinstance(entry, dict) and key in entry:
                entry[key] = name


@schemathesis.check  # type: ignore[untyped-decorator]
def says_which_request(_: Any, response: Any, __: Any) -> None:
    assert response.headers.get("x-request-id"), "there is no x-request-id"


@schemathesis.check  # type: ignore[untyped-decorator]
def says_whether_to_retry(_: Any, response: Any, __: Any) -> None:
    if response.status_code in {429, 503}:
        assert "retry-after" in response.headers or "x-should-retry" in response.headers
    elif response.status_code >= 400:
        assert response.headers.get("x-should-retry") == ["false"]


@schemathesis.check  # type: ignore[untyped-decorator]
def has_no_secret(_: Any, response: Any, __: Any) -> None:
    if response.status_code >= 400:
        assert not [secret for secret in SECRETS if secret in (response.text or "")]
