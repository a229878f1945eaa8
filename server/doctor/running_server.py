"""Checks of a running server: is it alive, is it ready, its models, and its version."""

import re
from functools import partial

import httpx

from lora_compose.adapters.command_line import server_root
from lora_compose.server.client.http import unreachable
from lora_compose.server.doctor.check import Check, Finding, fail, ok, warn
from lora_compose.server.versions import DISTRIBUTION, version_of, vllm_version

SECTION = "server"
TIMEOUT_SECONDS = 10.0
START = "Start a server with `lora-compose serve`, or correct --url"


def checks(url: str, api_key: str | None) -> list[Check]:
    rows = (("alive", alive), ("ready", ready), ("models", models), ("version", version))
    return [Check(SECTION, name, partial(run, server_root(url), api_key)) for name, run in rows]


def _get(url: str, api_key: str | None, path: str) -> httpx.Response:
    headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
    try:
        return httpx.get(f"{url}{path}", headers=headers, timeout=TIMEOUT_SECONDS)
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise unreachable(url, str(error) or type(error).__name__) from None


def _message(reply: httpx.Response) -> str:
    """The message of the server's error, or the status."""
    try:
        return f"{reply.json()['error']['message']} ({reply.json()['error']['code']})"
    except (ValueError, KeyError, TypeError):
        return f"the server answered with status {reply.status_code}"


def alive(url: str, api_key: str | None) -> Finding:
    reply = _get(url, api_key, "/livez")
    if not reply.is_success or "status" not in reply.text:
        return fail(f"the server at {url} is not a lora-compose server: {_message(reply)}", START)
    return ok(f"the server answers in {reply.elapsed.total_seconds() * 1000:.0f} ms")


def ready(url: str, api_key: str | None) -> Finding:
    reply = _get(url, api_key, "/readyz")
    if reply.is_success:
        return ok("the server accepts requests")
    return fail(
        _message(reply), "Wait if the server is starting or stopping. Otherwise read its log, and restart it"
    )


def models(url: str, api_key: str | None) -> Finding:
    reply = _get(url, api_key, "/v1/models")
    if reply.status_code == httpx.codes.UNAUTHORIZED:
        return fail("the server requires an API key", "Use --api-key, or set LORA_COMPOSE_API_KEY")
    if not reply.is_success:
        return fail(_message(reply), "Read the server's log for the reason")
    names = [card["id"] for card in reply.json()["data"]]
    if len(names) == 1:
        return warn(
            f"the base {names[0]} and no adapters", "Register an adapter: `lora-compose adapters add`"
        )
    return ok(f"the base {names[0]} and {len(names) - 1} adapters or compositions")


def version(url: str, api_key: str | None) -> Finding:
    """Compares the versions of the server with the versions that are installed here."""
    reply = _get(url, api_key, "/metrics")
    if not reply.is_success:
        return warn(f"/metrics: {_message(reply)}", "Use an API key that may read metrics")
    sample = re.search(r"^lora_compose_build_info\{(.*)\}", reply.text, re.MULTILINE)
    if sample is None:
        return warn(
            "the server does not report its version", "It is older than this lora-compose: upgrade it"
        )
    served = dict(re.findall(r'(\w+)="([^"]*)"', sample[1]))
    here = {"version": version_of(DISTRIBUTION), "vllm": vllm_version(), "torch": version_of("torch")}
    versions = [f"{name}: {served.get(name)} there, {found} here" for name, found in here.items()]
    if served != here:
        return warn("; ".join(versions), "Upgrade the older of the two: their flags and fields may differ")
    return ok(
        f"lora-compose {served['version']}, vLLM {served['vllm']}, torch {served['torch']}, the same as here"
    )
