"""Faults of names: invalid names of adapters, aliases and compositions, in every place that takes one."""

import json
from collections.abc import Callable
from functools import partial
from urllib.parse import quote

import httpx

from tests.campaigns.faults.fault import Act, Fault, refused
from tests.campaigns.faults.target import BASE, GOOD, Target

NONE: dict[str, object] = {
    "missing": ...,
    "null": None,
    "a number": 7,
    "a list": ["roll"],
    "an object": {},
    "true": True,
    "empty": "",
}
OUTSIDE = {
    name: name
    for name in (
        "../x",
        "a/../b",
        "/etc/passwd",
        "..%2fx",
        "..",
        ".",
        "~",
        "a\\b",
        "C:\\x",
        "a..b",
        "-x",
        ".x",
    )
}
STRANGE = {
    "a line feed": "a\nb",
    "a line feed at its end": "a\n",
    "NUL": "a\0b",
    "a closing quote": 'a"}',
    "a comma": "a,b",
    "a space": "a b",
    "a tab": "a\tb",
    "right to left": "a\u202eb",
    "zero width": "a\u200bb",
    "an umlaut": "ü",
    "full width": "ａ",
    "a combining mark": "a\u0301",
    "an emoji": "🙂",
    "half a surrogate": "\ud800",
    "a plus": "a+b",
    "a colon": "a:b",
    "an at": "a@1",
    "a bracket": "a(b",
    "a percent": "a%00b",
    "a dollar": "$(x)",
    "a tag": "<script>",
    "DEL": "a\x7fb",
}
LONG = {f"{length} characters": "n" * length for length in (129, 20_000, 1_000_000)}

Send = Callable[[Target, object], httpx.Response]


def _post(path: str, field: str, rest: dict[str, object]) -> Send:
    def send(target: Target, name: object) -> httpx.Response:
        body = rest if name is ... else rest | {field: name}
        # ASCII, because half a surrogate cannot be written in UTF-8.
        content = json.dumps(body, ensure_ascii=True)
        return target.http.post(path, content=content, headers={"content-type": "application/json"})

    return send


def _multipart(target: Target, name: object) -> httpx.Response:
    files = {
        file.name: file.read_bytes() for file in GOOD.iterdir() if file.suffix in (".json", ".safetensors")
    }
    given = {} if name is ... else {"name": name if isinstance(name, str) else str(name)}
    return target.http.post("/v1/adapters", data=given, files=files)


def _alias(target: Target, name: object) -> httpx.Response:
    return target.http.put(f"/v1/adapters/roll/aliases/{quote(str(name), safe='')}", json={"version": 1})


BODIES: dict[str, Send] = {
    "registering": _post("/v1/adapters", "name", {"path": str(GOOD)}),
    "vLLM's route": _post("/v1/load_lora_adapter", "lora_name", {"lora_path": str(GOOD)}),
    "a saved composition": _post("/v1/compositions", "name", {"model": "roll+upper"}),
}


def _variants(names: dict[str, object], *allowed: str, places: dict[str, Send]) -> dict[str, Act]:
    return {
        f"{place}: {label}": refused(*allowed, send=partial(_named, send, name))
        for place, send in places.items()
        for label, name in names.items()
    }


def _named(send: Send, name: object, target: Target) -> httpx.Response:
    return send(target, name)


def _writable(names: dict[str, str]) -> dict[str, object]:
    """The names that a multipart field or a path can contain."""
    return {label: name for label, name in names.items() if name.isprintable() and len(name) < 30_000}


FAULTS = (
    Fault(
        "An invalid name",
        _variants(NONE, "400 invalid_name", "400 invalid_request", places=BODIES),
        audited=True,
    ),
    Fault(
        "A name that is a path",
        _variants(dict(OUTSIDE), "400 invalid_name", places=BODIES | {"an upload": _multipart}),
        audited=True,
    ),
    Fault(
        "A name with characters that break logs, headers or labels",
        _variants(dict(STRANGE), "400 invalid_name", "400 invalid_json", places=BODIES)
        | _variants(_writable(STRANGE), "400 invalid_name", places={"an upload": _multipart})
        | _variants(_writable(STRANGE), "400 invalid_name", "404 not_found", places={"an alias": _alias}),
        audited=True,
    ),
    Fault("A name that is too long", _variants(dict(LONG), "400 invalid_name", places=BODIES), audited=True),
    Fault(
        "A name that is taken or reserved",
        _variants(
            {name: name for name in (BASE, "stack", "svd", "ties", "linear")},
            "409 name_reserved",
            places=BODIES,
        )
        | _variants(
            {"roll": "roll"},
            "409 name_reserved",
            places={"a saved composition": BODIES["a saved composition"]},
        ),
        audited=True,
    ),
)
