"""Does the server at an URL live, is it ready, does it know its models, and is it of our version?"""

import re
from functools import partial

import httpx

from lora_compose.server.client.http import unreachable
from lora_compose.server.doctor.check import Check, Finding, fail, ok, warn
from lora_compose.server.versions import DISTRIBUTION, version_of, vllm_version

SECTION = "server"
TIMEOUT_SECONDS = 10.0
START = "Start one with `lora-compose serve`, or correct --url"


def checks(url: str, api_key: str | None) -> list[Check]:
    rows = (("alive", alive), ("ready", ready), ("models", models), ("version", version))
    return [Check(SECTION, name, partial(look, url.rstrip("/"), api_key)) for name, look in rows]


def _get(url: str, api_key: str | None, path: str) -> httpx.Response:
    headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
    try:
        return httpx.get(f"{url}{path}", headers=headers, timeout=TIMEOUT_SECONDS)
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise unreachable(url, str(error) or type(error).__name__) from None


def _message(reply: httpx.Response) -> str:
    """The error's own sentence, or the status."""
    try:
        return f"{reply.json()['error']['message']} ({reply.json()['error']['code']})"
    except (ValueError, KeyError, TypeError):
        return f"it answers {reply.status_code}"


def alive(url: str, api_key: str | None) -> Finding:
    reply = _get(url, api_key, "/livez")
    if not reply.is_success or "status" not in reply.text:
        return fail(f"what answers at {url} is no lora-compose: {_message(reply)}", START)
    return ok(f"the process answers in {reply.elapsed.total_seconds() * 1000:.0f} ms")


def ready(url: str, api_key: str | None) -> Finding:
    reply = _get(url, api_key, "/readyz")
    if reply.is_success:
        return ok("it takes requests")
    return fail(_message(reply), "Wait if it is starting or draining; else its log says why, and restart it")


def models(url: str, api_key: str | None) -> Finding:
    reply = _get(url, api_key, "/v1/models")
    if reply.status_code == httpx.codes.UNAUTHORIZED:
        return fail("it wants an API key", "Give --api-key, or set LORA_COMPOSE_API_KEY")
    if not reply.is_success:
        return fail(_message(reply), "Its log says why")
    names = [card["id"] for card in reply.json()["data"]]
    if len(names) == 1:
        return warn(f"the base {names[0]} and no adapters", "Register one: `lora-compose adapters add`")
    return ok(f"the base {names[0]} and {len(names) - 1} adapters or compositions")


def version(url: str, api_key: str | None) -> Finding:
    """The versions it serves with, against those installed here."""
    reply = _get(url, api_key, "/metrics")
    if not reply.is_success:
        return warn(f"/metrics: {_message(reply)}", "Give a key that may read metrics")
    sample = re.search(r"^lora_compose_build_info\{(.*)\}", reply.text, re.MULTILINE)
    if sample is None:
        return warn("it does not tell its version", "It is older than this lora-compose: upgrade it")
    served = dict(re.findall(r'(\w+)="([^"]*)"', sample[1]))
    here = {"version": version_of(DISTRIBUTION), "vllm": vllm_version(), "torch": version_of("torch")}
    other = [f"{name} {served.get(name)} there, {known} here" for name, known in here.items()]
    if served != here:
        return warn("; ".join(other), "Upgrade the older of the two; they may disagree on flags and fields")
    return ok(f"lora-compose {served['version']}, vLLM {served['vllm']}, torch {served['torch']}, as here")
