"""Faults of bodies: invalid JSON, uploads, lengths and parameters."""

import gzip
import io
import json
import zipfile
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx

from tests.campaigns.faults.broken_adapter import CONFIG
from tests.campaigns.faults.fault import HUNG_UP, Act, Fault, named, refused
from tests.campaigns.faults.target import BASE, GOOD, Target

JSON = {"content-type": "application/json"}
ROUTES = (
    ("POST", "/v1/completions"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/responses"),
    ("POST", "/tokenize"),
    ("POST", "/v1/adapters"),
    ("POST", "/v1/compositions"),
    ("PUT", "/v1/fusion"),
    ("POST", "/v1/benchmarks"),
    ("POST", "/v1/load_lora_adapter"),
    ("PUT", "/v1/adapters/roll/aliases/x"),
)
NO_JSON = {
    "broken": b"{",
    "a list": b"[]",
    "a string": b'"x"',
    "null": b"null",
    "empty": b"",
    "100,000 deep": b"[" * 100_000,
    "objects 100,000 deep": b'{"a":' * 100_000,
    "not UTF-8": b'{"model": "\xff"}',
    "two objects": b"{}{}",
    "a comma at its end": b'{"model": "x",}',
    "a number of 10,000 digits": b'{"model": ' + b"9" * 10_000 + b"}",
}
UNTYPED = {
    "text": {"content-type": "text/plain"},
    "a form": {"content-type": "application/x-www-form-urlencoded"},
    "XML": {"content-type": "application/xml"},
    "gzip": JSON | {"content-encoding": "gzip"},
    "br": JSON | {"content-encoding": "br"},
}
MODELS: tuple[object, ...] = (7, "", [], {}, True)
CUT = b"POST /v1/adapters HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


def _send(method: str, path: str, content: bytes, headers: dict[str, str]) -> Any:
    return lambda target: target.http.request(method, path, content=content, headers=headers)


def _post(path: str, body: object, target: Target) -> httpx.Response:
    return target.http.post(path, json=body)


def _generate(given: dict[str, object], target: Target) -> httpx.Response:
    return target.generate({"model": "roll"} | given)


def _endless() -> Iterator[bytes]:
    for _ in range(200):
        yield b" " * (1 << 20)


def _chunked(path: str) -> Act:
    """200 MB without a length. The server may close the connection before the client has sent everything."""

    def send(target: Target) -> httpx.Response | None:
        try:
            return target.http.post(path, content=_endless(), headers=JSON)
        except httpx.TransportError:
            return None

    return refused("413 request_too_large", HUNG_UP, send=send)


def _bomb() -> bytes:
    return gzip.compress(bytes(100 << 20))


def _upload(files: dict[str, Any], data: dict[str, str] | None = None) -> Any:
    return lambda target: target.http.post("/v1/adapters", data={"name": "case"} | (data or {}), files=files)


def _good() -> dict[str, bytes]:
    return {name: (GOOD / name).read_bytes() for name in ("adapter_config.json", "adapter_model.safetensors")}


def _archive() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../evil", b"x")
        archive.writestr("bomb", bytes(50 << 20))
    return data.getvalue()


def _raw_upload(body: bytes, boundary: str = "b") -> Any:
    headers = {
        "content-type": f"multipart/form-data; boundary={boundary}" if boundary else "multipart/form-data"
    }
    return lambda target: target.http.post("/v1/adapters", content=body, headers=headers)


def _part(name: str, body: bytes, extra: str = "") -> bytes:
    return f'--b\r\ncontent-disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode() + body + b"\r\n"


def _hung_up_midway(target: Target) -> list[str]:
    """Send half of the announced body, then disconnect."""
    body = b'{"name": "case", "path": "'
    target.raw(CUT + target.authorization + b"content-length: 1000\r\n\r\n" + body, cut=True)
    parts = _part("name", b"case") + _part("adapter_model.safetensors", bytes(1 << 20), '; filename="x"')
    head = CUT.replace(b"application/json", b"multipart/form-data; boundary=b") + target.authorization
    target.raw(head + f"content-length: {len(parts) * 2}\r\n\r\n".encode() + parts, cut=True)
    return [HUNG_UP] * 2


def _wrong_length(declared: str) -> Act:
    def send(target: Target) -> httpx.Response | None:
        head = CUT + target.authorization + f"content-length: {declared}\r\n\r\n".encode()
        return target.raw(head + b'{"name": "case"}')

    return refused("400 invalid_source", "400 invalid_request", "400 invalid_json", HUNG_UP, send=send)


def _parameters() -> dict[str, Act]:
    huge = {
        "n": 10**9, "max_tokens": 10**12, "logprobs": 10**6, "temperature": -1, "top_p": 2, "top_k": -7,
        "stop": ["x"] * 100_000, "prompt": "x " * 1_000_000, "seed": 2**70, "frequency_penalty": 1e9,
        "min_p": 9, "repetition_penalty": -1, "prompt_logprobs": 10**6, "priority": "x", "stream": "maybe",
        "logit_bias": {"999999999": 1}, "allowed_token_ids": [10**9], "truncate_prompt_tokens": -9,
    }  # fmt: skip
    return {
        f"{name} = {value!r:.30}": refused(
            "400 invalid_request",
            send=partial(_generate, {name: value}),
        )
        for name, value in huge.items()
    }


def _content() -> dict[str, Act]:
    messages: dict[str, Any] = {
        "no message": [],
        "an unknown role": [{"role": "king", "content": "x"}],
        "an image": [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}
        ],
        "a number": [{"role": "user", "content": 7}],
        "no list": "x",
    }
    return {
        label: refused(
            "400 invalid_request",
            send=partial(
                _post, "/v1/chat/completions", {"model": "roll", "messages": given, "max_tokens": 4}
            ),
        )
        for label, given in messages.items()
    }


FAULTS = (
    Fault(
        "A body that is not a JSON object",
        {
            f"{path}: {label}": refused("400 invalid_json", send=_send(method, path, body, JSON))
            for method, path in ROUTES
            for label, body in NO_JSON.items()
        },
    ),
    Fault(
        "A body with another content type or encoding",
        {
            f"{path}: {label}": refused(
                "415 unsupported_media_type", send=_send(method, path, b"{}", headers)
            )
            for method, path in ROUTES
            for label, headers in UNTYPED.items()
        }
        | {
            "a gzip bomb": refused(
                "415 unsupported_media_type",
                "413 request_too_large",
                send=lambda t: t.http.post(
                    "/v1/completions", content=_bomb(), headers=JSON | {"content-encoding": "gzip"}
                ),
            )
        },
    ),
    Fault(
        "An endless body",
        {path: _chunked(path) for path in ("/v1/completions", "/v1/adapters", "/tokenize")}
        | {
            "33 MB, announced": refused(
                "413 request_too_large",
                send=lambda t: t.http.post("/v1/completions", content=b" " * (33 << 20), headers=JSON),
            )
        },
    ),
    Fault(
        "Fields that are unknown, missing or of another type",
        named(
            (
                json.dumps(body).replace(str(GOOD), "roll"),
                refused(*allowed, send=partial(_post, "/v1/adapters", {"name": "case"} | body)),
            )
            for body, allowed in (
                ({}, ("400 invalid_source",)),
                ({"path": "x", "hf": "y"}, ("400 invalid_source",)),
                ({"path": 7}, ("400 invalid_request",)),
                ({"path": str(GOOD), "nmae": "x"}, ("400 unknown_field",)),
                ({"path": str(GOOD), "alias": 7}, ("400 invalid_name",)),
                ({"path": str(GOOD), "alias": "1"}, ("400 invalid_name",)),
                ({"path": str(GOOD), "digest": 7}, ("400 invalid_request",)),
                ({"path": str(GOOD), "digest": "0" * 64}, ("400 digest_mismatch",)),
                ({"path": str(GOOD), "lineage": 7}, ("400 invalid_lineage",)),
                ({"path": str(GOOD), "lineage": {"x": "y" * 10**6}}, ("400 invalid_lineage",)),
            )
        ),
        audited=True,
    ),
    Fault(
        "An invalid upload",
        {
            "one file": refused("400 invalid_upload", send=_upload({CONFIG: (GOOD / CONFIG).read_bytes()})),
            "another file": refused("400 unknown_field", send=_upload({"evil.sh": b"x"})),
            "a path as its name": refused(
                "400 unknown_field", send=_upload({"file": ("../../adapter_config.json/x", b"{}")})
            ),
            "an archive": refused(
                "422 corrupt_weights",
                send=lambda t: _upload(_good() | {"adapter_model.safetensors": _archive()})(t),
            ),
            "another digest": refused(
                "400 digest_mismatch", send=lambda t: _upload(_good(), {"digest": "0" * 64})(t)
            ),
            "no boundary": refused("400 invalid_upload", send=_raw_upload(b"x", "")),
            "another boundary": refused(
                "400 invalid_upload", "400 invalid_name", send=_raw_upload(_part("name", b"x"), "c")
            ),
            "never closed": refused(
                "400 invalid_upload", "400 invalid_name", send=_raw_upload(_part("name", b"case"))
            ),
            "10,000 parts": refused(
                "400 invalid_upload", send=_raw_upload(_part("x", b"") * 10_000 + b"--b--")
            ),
            "a part's header of 10 MB": refused(
                "400 invalid_upload",
                "400 unknown_field",
                send=_raw_upload(_part("x" * (10 << 20), b"") + b"--b--"),
            ),
            "a field of 10 MB": refused(
                "400 invalid_upload", send=_raw_upload(_part("name", b"x" * (10 << 20)) + b"--b--")
            ),
        },
        audited=True,
    ),
    Fault("A client that disconnects half-way", {"JSON, and an upload": _hung_up_midway}),
    Fault(
        "A wrong content length",
        {declared: _wrong_length(declared) for declared in ("5", "-1", "x", "99999999999999999999", "0x10")},
    ),
    Fault("Parameters out of range", _parameters()),
    Fault("Invalid messages", _content()),
    Fault(
        "An invalid model",
        {
            f"{path}: {model!r:.30}": refused(
                "400 invalid_model",
                send=partial(_post, path, {"model": model}),
            )
            for path in ("/v1/completions", "/v1/chat/completions", "/v1/responses", "/tokenize")
            for model in MODELS
        }
        | {"the base still answers": lambda t: [str(t.generate({"model": BASE}).status_code)]},
    ),
)
