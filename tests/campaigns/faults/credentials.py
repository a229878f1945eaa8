"""Faults of credentials: invalid keys, keys on routes they may not use, misleading paths and headers."""

import statistics
import time
from typing import Any

import httpx

from tests.campaigns.faults.fault import HUNG_UP, Act, Fault, Needs, checked, refused
from tests.campaigns.faults.target import Target

ASKED = {"model": "roll", "prompt": "x", "max_tokens": 2}
ROUTES = (
    ("GET", "/v1/models"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/chat/completions"),
    ("GET", "/v1/adapters"),
    ("POST", "/v1/adapters"),
    ("DELETE", "/v1/adapters/roll"),
    ("GET", "/metrics"),
    ("PUT", "/v1/fusion"),
    ("GET", "/nothing"),
)
ADMIN = (
    ("POST", "/v1/adapters"),
    ("DELETE", "/v1/adapters/roll"),
    ("PUT", "/v1/adapters/roll/aliases/x"),
    ("PUT", "/v1/adapters/roll/pin"),
    ("POST", "/v1/compositions"),
    ("PUT", "/v1/fusion"),
    ("DELETE", "/v1/fusion"),
    ("GET", "/v1/residency"),
    ("POST", "/v1/benchmarks"),
    ("GET", "/metrics"),
    ("POST", "/v1/load_lora_adapter"),
    ("POST", "/v1/unload_lora_adapter"),
)
OF_VLLM = (("POST", "/sleep"), ("POST", "/collective_rpc"))
PATHS = (
    "//v1/adapters", "/v1//adapters", "/v1/models/../adapters", "/v1/completions/../adapters", "/V1/adapters",
    "/v1/models/%2e%2e/adapters", "/%76%31/adapters", "/v1/adapters/", "/v1/adapters%00", "/v1/adapters;x",
    "/v1/adapters?x", "/v1/models#/../adapters", "/livez/../v1/adapters", "/livez%2f..%2fv1%2fadapters",
    "http://x/v1/adapters", "/v1/\\adapters", "/v1/adapters%0d%0ax: y", "/./v1/adapters",
    "/v1/models/%2e%2e%2fadapters",
)  # fmt: skip
HOSTS = (
    "localhost/v1/models?", "127.0.0.1:1/livez", "admin", "x\ty", "[::1", "a" * 5000, "livez", "",
)  # fmt: skip
VERBS = ("TRACE", "CONNECT", "PROPFIND", "PURGE", "get", "X" * 100)


def _headers(*lines: str) -> Any:
    """Sends a hand-written `GET /v1/models` with these header lines."""
    text = "GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n" + "".join(
        f"{line}\r\n" for line in lines
    )
    return lambda target: target.raw(
        text.format(secret=target.secrets["operator"]).encode("latin-1") + b"\r\n"
    )


KEYLESS = {
    "none": (),
    "another": ("authorization: Bearer sk-wrong",),
    "empty": ("authorization:",),
    "the scheme alone": ("authorization: Bearer",),
    "Basic": ("authorization: Basic {secret}",),
    "no scheme": ("authorization: {secret}",),
    "twice": ("authorization: Bearer {secret}", "authorization: Bearer {secret}"),
    "two in one": ("authorization: Bearer {secret}, Bearer {secret}",),
    "in another case": ("authorization: Bearer {secret}X",),
    "two spaces": ("authorization: Bearer  {secret}",),
    "in another header": ("x-auth-token: {secret}",),
    "umlauts": ("authorization: Bearer ä",),
    "an own id": ("authorization: Bearer x", "x-request-id: a"),
}


def _without(method: str, path: str) -> Act:
    def send(target: Target) -> httpx.Response:
        with target.client(None) as client:
            return client.request(method, path, json=ASKED)

    return refused("401 invalid_api_key", send=send)


def _with(key: str, method: str, path: str, *allowed: str) -> Act:
    def send(target: Target) -> httpx.Response:
        with target.client(key) as client:
            return client.request(method, path, json=ASKED)

    return refused(*allowed, send=send)


def _pretending(request: str, *allowed: str, key: str = "inference") -> Act:
    """Sends a hand-written `request`, with the key of a tenant that may only generate."""

    def act(target: Target) -> list[str]:
        head = f"{request}\r\nauthorization: Bearer {target.secrets[key]}\r\nconnection: close\r\n\r\n"
        reply = target.raw(head.encode("latin-1"))
        if reply is not None:
            assert '"digest"' not in reply.text, "the reply shows an adapter's record"
            if reply.status_code == 400 and not reply.headers.get("x-request-id"):
                return ["400, before any request was read"]
        return [checked(reply, *allowed)]

    return act


def _a_megabyte(target: Target) -> list[str]:
    with target.client(None) as client:
        try:
            reply = client.get("/v1/models", headers={"authorization": "Bearer " + "x" * (1 << 20)})
        except httpx.TransportError:
            return [HUNG_UP]
    assert reply.status_code in (400, 401, 431), reply.text
    return [str(reply.status_code)]


def _as_long(target: Target) -> list[str]:
    """Refusing a missing key, a wrong key and an almost right key takes the same time."""
    near = target.secrets["operator"][:-1] + "?"
    headers_by_kind = {
        "none": {},
        "wrong": {"authorization": "Bearer x"},
        "near": {"authorization": f"Bearer {near}"},
    }
    seconds: dict[str, list[float]] = {name: [] for name in headers_by_kind}
    with target.client(None) as client:
        for _ in range(100):
            for name, headers in headers_by_kind.items():
                began = time.perf_counter()
                assert client.get("/v1/models", headers=headers).status_code == 401
                seconds[name].append(time.perf_counter() - began)
    medians = sorted(statistics.median(times) for times in seconds.values())
    assert medians[-1] < 2 * medians[0], medians
    return ["401 invalid_api_key"] * 300


ANYTHING_BUT = ("200", "400 invalid_request", "401 invalid_api_key", "403 permission_denied", "404 not_found",
                "404 model_not_found", "405 method_not_allowed", HUNG_UP)  # fmt: skip
UNREAD = ("400 invalid_json", "415 unsupported_media_type")
FAULTS = (
    Fault(
        "No key",
        {f"{method} {path}": _without(method, path) for method, path in ROUTES},
        Needs.KEYS,
    ),
    Fault(
        "An invalid key, or a key sent in a wrong way",
        {label: refused("401 invalid_api_key", send=_headers(*lines)) for label, lines in KEYLESS.items()}
        | {
            "revoked": _with("revoked", "GET", "/v1/models", "401 invalid_api_key"),
            "of a megabyte": _a_megabyte,
        },
        Needs.KEYS,
    ),
    Fault("How long a refusal takes", {"100 of each of three": _as_long}, Needs.KEYS),
    Fault(
        "A tenant's key on the operator's routes",
        {
            f"{method} {path}": _with("inference", method, path, "403 permission_denied")
            for method, path in ADMIN
        }
        | {
            f"{method} {path}": _with("inference", method, path, "404 not_offered")
            for method, path in OF_VLLM
        },
        Needs.KEYS,
        audited=True,
    ),
    Fault(
        "A path written to look like another path",
        {
            path: _pretending(f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0", *ANYTHING_BUT[1:])
            for path in PATHS
        },
        Needs.KEYS,
    ),
    Fault(
        "A false Host header",
        {
            host[:30]: _pretending(
                f"POST /v1/adapters HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0", *ANYTHING_BUT[1:]
            )
            for host in HOSTS
        },
        Needs.KEYS,
    ),
    Fault(
        "Headers that claim another path or client",
        {
            line: _pretending(
                f"POST /v1/adapters HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n{line}",
                "403 permission_denied",
            )
            for line in (
                "x-original-url: /v1/models",
                "x-rewrite-url: /v1/models",
                "x-forwarded-for: 127.0.0.1",
                "x-forwarded-host: localhost",
                "forwarded: for=127.0.0.1;host=localhost",
                "x-http-method-override: GET",
                "x-forwarded-prefix: /livez",
            )
        },
        Needs.KEYS,
    ),
    Fault(
        "Other HTTP methods",
        {
            verb[:20]: _pretending(
                f"{verb} /v1/adapters HTTP/1.1\r\nhost: x\r\ncontent-length: 0", *ANYTHING_BUT[1:]
            )
            for verb in VERBS
        },
        Needs.KEYS,
    ),
    Fault(
        "Two requests in one",
        {
            label: _pretending(
                f"POST /v1/completions HTTP/1.1\r\nhost: x\r\n{lines}", *ANYTHING_BUT[1:], *UNREAD
            )
            for label, lines in {
                "a length and chunks": "content-length: 4\r\ntransfer-encoding: chunked",
                "two lengths": "content-length: 0\r\ncontent-length: 50",
                "a space before the colon": "content-length : 0",
                "chunks of another case": "transfer-encoding: xchunked",
            }.items()
        },
        Needs.KEYS,
    ),
)
