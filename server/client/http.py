"""HTTP client for a running server: adapters, fusion, residency, tokens. `chat.py` asks chat questions.

A refusal is raised as LoraComposeError with the server's own code and message. If no server answers, the code
is `server_unreachable`. JSON objects are returned unchanged, without a check of their fields.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, BinaryIO, Self
from urllib.parse import quote

import httpx

from lora_compose.adapters.command_line import server_root
from lora_compose.adapters.errors import Code, CommandCode, LoraComposeError, ServerCode
from lora_compose.adapters.names import suggestion

CONNECT_SECONDS = 5.0
QUOTED = re.compile(r"'([^'@]+)")
"""The first name in a message."""
Json = dict[str, Any]


def unreachable(url: str, reason: str) -> LoraComposeError:
    """The error for a `url` at which no server answers."""
    return LoraComposeError(
        CommandCode.SERVER_UNREACHABLE,
        f"No server answers at {url}: {reason}. Start one with `lora-compose serve`, or set --url.",
    )


def foreign_reply(url: str) -> LoraComposeError:
    """The error for a reply at `url` that lora-compose cannot have sent."""
    return LoraComposeError(
        CommandCode.NOT_A_SERVER, f"{url} sent a reply that is not from a lora-compose server."
    )


class Client:
    """One server.

    Calls have no time limit, because the server needs time, for example to check a large adapter."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self._url = server_root(url)
        headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        timeout = httpx.Timeout(None, connect=CONNECT_SECONDS)
        try:
            self._http = httpx.Client(base_url=self._url, headers=headers, timeout=timeout)
        except (httpx.InvalidURL, UnicodeEncodeError) as error:
            raise LoraComposeError(
                CommandCode.INVALID_URL, f"The URL {url!r} or the API key is not valid: {error}"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def is_ready(self) -> bool:
        """True if the server answers and accepts requests."""
        try:
            return self._http.get("/readyz").is_success
        except httpx.TransportError:
            return False

    def models(self) -> list[Json]:
        """The model cards. The base is the first."""
        return list(self._call("GET", "/v1/models")["data"])

    def upload(self, fields: Mapping[str, str], files: Mapping[str, BinaryIO]) -> Json:
        """Register an adapter from its two files, by file name.

        `fields` has a name, and may have an alias and ttl_seconds."""
        parts = {name: (name, file, "application/octet-stream") for name, file in files.items()}
        return self._call("POST", "/v1/adapters", data=dict(fields), files=parts)

    def register(self, fields: Mapping[str, object]) -> Json:
        """Register an adapter that the server reads itself.

        `fields` has a name and path or hf, and may have an alias and ttl_seconds."""
        return self._call("POST", "/v1/adapters", json=dict(fields))

    def adapters(self) -> list[Json]:
        """Every version of every adapter."""
        return list(self._call("GET", "/v1/adapters")["data"])

    def adapter(self, reference: str) -> Json:
        """One version: `name`, `name@2` or `name@alias`."""
        return self._call("GET", f"/v1/adapters/{_quoted(reference)}")

    def remove(self, reference: str, cascade: bool = False) -> None:
        """Remove a version, or with a name alone all of its versions."""
        self._call("DELETE", f"/v1/adapters/{_quoted(reference)}", params={"cascade": cascade})

    def set_alias(self, name: str, alias: str, version: int) -> Json:
        """Make `name@alias` an alias of that version."""
        return self._call(
            "PUT", f"/v1/adapters/{_quoted(name)}/aliases/{_quoted(alias)}", json={"version": version}
        )

    def remove_alias(self, name: str, alias: str) -> None:
        """Remove the alias `name@alias`. The version stays."""
        self._call("DELETE", f"/v1/adapters/{_quoted(name)}/aliases/{_quoted(alias)}")

    def save(self, name: str, composition: str) -> Json:
        """Save a composition under a name."""
        return self._call("POST", "/v1/compositions", json={"name": name, "model": composition})

    def predict(self, composition: str) -> Json:
        """The rank, error and warnings of a composition. A merge is built for it."""
        return self._call("POST", "/v1/compositions", params={"dry_run": True}, json={"model": composition})

    def compositions(self) -> list[Json]:
        """Every saved composition."""
        return list(self._call("GET", "/v1/compositions")["data"])

    def remove_composition(self, name: str) -> None:
        """Remove a saved composition. Its adapters stay."""
        self._call("DELETE", f"/v1/compositions/{_quoted(name)}")

    def tokenize(self, model: str, text: str) -> list[int]:
        """The token ids of a text, without special tokens."""
        body = {"model": model, "prompt": text, "add_special_tokens": False}
        return list(self._call("POST", "/tokenize", json=body)["tokens"])

    def tokenize_chat(self, model: str, text: str) -> list[int]:
        """The token ids of the prompt for a user message: those of the chat template and of `text`."""
        body = {"model": model, "messages": [{"role": "user", "content": text}]}
        return list(self._call("POST", "/tokenize", json=body)["tokens"])

    def residency(self) -> Json:
        """Which adapters are in host memory and in slots, as the server and its workers report it."""
        return self._call("GET", "/v1/residency")

    def fusion(self) -> Json:
        """The fused composition, and the progress of a switch."""
        return self._call("GET", "/v1/fusion")

    def fuse(self, composition: str) -> Json:
        """Fuse a composition into the base. Returns when the switch has ended."""
        return self._call("PUT", "/v1/fusion", json={"model": composition})

    def restore_base(self) -> Json:
        """Restore the plain base. Returns when the switch has ended."""
        return self._call("DELETE", "/v1/fusion")

    def _call(self, method: str, path: str, **content: Any) -> Json:
        try:
            response = self._http.request(method, path, **content)
        except httpx.TransportError as error:
            raise unreachable(self._url, str(error) or type(error).__name__) from error
        if not response.is_success:
            raise with_suggestion(_refusal(response), self._names)
        if response.status_code == httpx.codes.NO_CONTENT:
            return {}
        body = _json(response)
        if not isinstance(body, dict):
            raise foreign_reply(str(response.url))
        return body

    def _names(self) -> set[str]:
        return names_in(self._http.get("/v1/adapters").json())


def names_in(listing: Any) -> set[str]:
    """The names in a list of adapters, as `GET /v1/adapters` returns it."""
    return {str(adapter["name"]) for adapter in listing["data"]}


def with_suggestion(refusal: LoraComposeError, names: Callable[[], set[str]]) -> LoraComposeError:
    """The refusal of an unknown model with the most similar name. Other refusals are returned unchanged.

    `names` may fail: then there is no suggestion.
    """
    named = QUOTED.search(refusal.message)
    if refusal.code != Code.MODEL_NOT_FOUND or named is None:
        return refusal
    with suppress(Exception):
        known = names()
        if named[1] not in known:
            text = f"{refusal.message}{suggestion(named[1], known)}"
            return LoraComposeError(refusal.code, text, refusal.param)
    return refusal


def _quoted(segment: str) -> str:
    return quote(segment, safe="@")


def _json(response: httpx.Response) -> object:
    try:
        return response.json()
    except ValueError:
        return None


def _refusal(response: httpx.Response) -> LoraComposeError:
    """The server's error object, or the status if the body has none."""
    body = _json(response)
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict) or not error.get("message"):
        status = f"{response.status_code} {response.reason_phrase}"
        return LoraComposeError(
            ServerCode(f"http_{response.status_code}"), f"{response.url} answered with status {status}."
        )
    code = ServerCode(str(error.get("code") or f"http_{response.status_code}"))
    return LoraComposeError(code, str(error["message"]), error.get("param"))
